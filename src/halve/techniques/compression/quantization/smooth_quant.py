"""SmoothQuant: what is hard to round in the activations is moved into the weights, where it is easy.

In transformers a few channels of the activations are much larger than the others, and one scale for all of them
leaves the small ones with few steps. A channel can be divided by s_j if the weights that read it are multiplied by it:

    x W = (x / s) (s W),    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)

alpha = 0.5 splits the difficulty evenly. The division costs nothing where it folds into what computes x: the scale and
bias of a layer normalization, or a product, if nobody else reads x. Else (a residual stream reads it too) a
multiplication by 1 / s is put in front of the layers that share x: one pass over the activations.

It does not help convolutions, whose channels are even after batch norm, nor weight-only quantization.

Source: Xiao et al. 2022, arXiv:2211.10438, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import FloatArray
from halve.techniques.compression.quantization.calibration import Batches, record
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.nodes import replace_field, tensor_names, unique

OPERATORS = ("Gemm", "MatMul")

MOST_STRETCH = 1e4
"""Factors are kept within this of 1: a channel that is nearly always 0 needs no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Smoothed:
    """The model, and how its layers got their smooth inputs.

    Args:
        graph: Answers as before, up to rounding of float32.
        folded: Layers whose division costs nothing.
        multiplied: Layers with a multiplication in front.
    """

    graph: Graph
    folded: tuple[str, ...]
    multiplied: tuple[str, ...]


def smooth(graph: Graph, batches: Batches, *, alpha: float = 0.5) -> Smoothed:
    """Return the model with smoother inputs of its Gemm and MatMul layers.

    Args:
        graph: The fp32 model; it is not changed.
        batches: Calibration inputs: they show how large each channel gets.
        alpha: How much of the spread moves into the weights, in (0, 1).

    Raises:
        InvalidParameterError: If alpha is outside its range, or the batches cannot be used.
    """
    if not 0 < alpha < 1:
        raise InvalidParameterError("alpha", rule="in (0, 1)", value=alpha)
    sharing: dict[str, list[Layer]] = {}
    for layer in graph.layers:
        if layer.operator in OPERATORS:
            sharing.setdefault(layer.input, []).append(layer)
    largest = _largest(graph, batches, list(sharing))
    smoothed = graph.copy()
    folded: list[str] = []
    multiplied: dict[str, FloatArray] = {}
    for tensor, layers in sharing.items():
        factors = _factors(smoothed, layers, largest[tensor], alpha)
        if _fold(smoothed, tensor, layers, factors):
            folded += [layer.name for layer in layers]
        else:
            multiplied[tensor] = factors
        for layer in layers:
            rows = smoothed.rows(layer) * factors
            smoothed.set_constant(layer.weight, smoothed.from_rows(layer, rows))
    return Smoothed(
        graph=_with_multiplications(smoothed, sharing, multiplied),
        folded=tuple(folded),
        multiplied=tuple(layer.name for tensor in multiplied for layer in sharing[tensor]),
    )


def _largest(graph: Graph, batches: Batches, tensors: Sequence[str]) -> dict[str, FloatArray]:
    """Return max|x_j| of the last axis of each tensor."""
    found: dict[str, FloatArray] = {}
    for values in record(graph, batches, tensors):
        for name, value in values.items():
            here = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0).astype(np.float32)
            found[name] = np.maximum(found.get(name, here), here)
    return found


def _factors(graph: Graph, layers: Sequence[Layer], largest: FloatArray, alpha: float) -> FloatArray:
    weights = np.max([np.abs(graph.rows(layer)).max(axis=0) for layer in layers], axis=0)
    used = (largest > 0) & (weights > 0)
    safe_inputs, safe_weights = np.where(used, largest, 1.0), np.where(used, weights, 1.0)
    factors = safe_inputs.astype(np.float64) ** alpha / safe_weights.astype(np.float64) ** (1 - alpha)
    return np.where(used, np.clip(factors, 1 / MOST_STRETCH, MOST_STRETCH), 1.0).astype(np.float32)


def _fold(graph: Graph, tensor: str, layers: Sequence[Layer], factors: FloatArray) -> bool:
    """Divide what computes the tensor, if that is exact; return whether it was."""
    readers = {layer.name for layer in layers}
    node = graph.producer(tensor)
    if node is None or tensor in graph.outputs or {reader.name for reader in graph.consumers(tensor)} != readers:
        return False
    if node.op_type == "LayerNormalization" and node.output[0] == tensor:
        constants = [name for name in node.input[1:] if name]
    else:
        source = next((layer for layer in graph.layers if layer.output == tensor and layer.operator == "Gemm"), None)
        if source is None:
            return False
        graph.set_constant(source.weight, graph.from_rows(source, graph.rows(source) / factors[:, None]))
        constants = [source.bias] if source.bias is not None else []
    if not all(graph.is_constant(name) and len(graph.consumers(name)) == 1 for name in constants):
        return False
    if any(graph.constant(name).shape != factors.shape for name in constants):
        return False
    for name in constants:
        graph.set_constant(name, graph.constant(name) / factors)
    return True


def _with_multiplications(graph: Graph, sharing: dict[str, list[Layer]], multiplied: dict[str, FloatArray]) -> Graph:
    """Put a multiplication by 1 / s between a tensor and the layers that share it."""
    from onnx import helper, numpy_helper

    taken = tensor_names(graph.proto.graph)
    added = {}
    for tensor, factors in multiplied.items():
        constant, output = unique(f"{tensor}_smoothing", taken), unique(f"{tensor}_smooth", taken)
        graph.proto.graph.initializer.append(numpy_helper.from_array(np.float32(1) / factors, constant))
        readers = {layer.name for layer in sharing[tensor]}
        for node in graph.consumers(tensor):
            if node.name in readers:
                node.input[0] = output
        added[tensor] = helper.make_node("Mul", [tensor, constant], [output], name=output)
    nodes = [added[name] for name in graph.inputs if name in added]
    for node in graph.proto.graph.node:
        nodes += [node, *(added[name] for name in node.output if name in added)]
    replace_field(graph.proto.graph.node, nodes)
    return Graph(graph.proto)

"""From a trained module to real integers: an ONNX file in which the runtime multiplies bytes.

The way there: the module is copied with ordinary layers (folded, rounded weights) in place of products and a marker in
place of every quantizer, exported as fp32, and read back as a `Graph`. Markers show which tensor each grid belongs to,
equal weights show which layer each product became, and `write_qdq` writes both as integers.
"""

import copy
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.affine import Grid, QuantizedTensor
from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.qdq import write_qdq
from halve.techniques.compression.quantization.training.prepare import Inputs, is_dense, products, quantizers

if TYPE_CHECKING:
    from torch import nn

    from halve.techniques.compression.quantization.training.modules import QuantizedProduct

_MARKER_STEP = 2.0**-23
"""Quantizer number k is marked by a LeakyRelu of slope 1 + (k + 1) steps: one node, and the identity to 7 digits.

The exporter neither merges nor drops it, whatever stands around it, and nobody else uses such a slope.
"""

_MOST_MARKERS = 4096


@dataclass(frozen=True, kw_only=True)
class ConvertedLayer:
    """What became of one product.

    Args:
        name: Of the submodule that owned the weight.
        node: Of the ONNX node.
        operator: ONNX operator.
        weight_bits, input_bits: Of its two factors; the kernel carries both in bytes.
    """

    name: str
    node: str
    operator: str
    weight_bits: int
    input_bits: int


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The written file.

    Args:
        path: Where it is.
        layers: Every product in integers, in the order of the graph.
        left_in_fp32: ONNX names of products with a constant weight that are not in integers.
        tensors: ONNX tensor that holds the integers of each quantizer, by the quantizer's submodule name.
    """

    path: Path
    layers: tuple[ConvertedLayer, ...]
    left_in_fp32: tuple[str, ...]
    tensors: Mapping[str, str]


def convert(prepared: "nn.Module", inputs: Inputs, path: Path) -> Converted:
    """Write a prepared module as an ONNX file in integers; fake quantization is gone.

    Activations of fewer than 8 bits are carried by INT8 kernels and weights of at most 4 bits are packed on disk: on a
    processor without 4-bit arithmetic that saves memory, not multiplication time.

    Args:
        prepared: From `prepare`, in evaluation mode, trained or not.
        inputs: A few real inputs; their names become the graph's.
        path: Where the file goes.

    Raises:
        InvalidParameterError: If the module is not from `prepare`, or is in training mode.
        ModelError: If torch cannot export it, or a layer of the exported graph cannot be matched.
    """
    if not products(prepared):
        raise InvalidParameterError("prepared", rule="a module from prepare()", value=type(prepared).__name__)
    with tempfile.TemporaryDirectory(prefix="halve-") as folder:
        target = Path(folder) / "fp32.onnx"
        export_onnx(_marked(prepared), inputs, target)
        content = target.read_bytes()
    names = list(quantizers(prepared))
    stripped, marks = _strip_markers(content)
    graph = Graph.load(stripped)
    activations = {tensor: quantizers(prepared)[names[number]].grid() for tensor, number in marks.items()}
    matched = _match(graph, prepared, activations)
    weights = {layer.name: _stored(graph, layer, product) for layer, product in matched}
    layers = tuple(
        ConvertedLayer(
            name=product.name,
            node=layer.name,
            operator=layer.operator,
            weight_bits=product.scheme.bits,
            input_bits=activations[layer.input].scheme.bits,
        )
        for layer, product in matched
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    written = write_qdq(graph, weights=weights, activations=activations, only_products=is_dense(prepared))
    path.write_bytes(written)
    integers = _integer_tensors(written)
    return Converted(
        path=path,
        layers=layers,
        left_in_fp32=tuple(layer.name for layer in graph.layers if layer.name not in weights),
        tensors={names[number]: integers[tensor] for tensor, number in sorted(marks.items(), key=lambda mark: mark[1])},
    )


def _marked(prepared: "nn.Module") -> "nn.Module":
    """Return a copy with ordinary layers in place of products and a marker in place of every quantizer."""
    from torch import fx, nn

    marked = cast(fx.GraphModule, copy.deepcopy(prepared))
    numbers = {name: number for number, name in enumerate(quantizers(prepared))}
    layers = products(prepared)
    for node in list(marked.graph.nodes):
        if node.op == "call_module" and node.target in layers:
            node.args = node.args[:1]
            marked.add_submodule(node.target, layers[node.target].plain())
        elif node.op == "call_module" and node.target in numbers:
            slope = 1.0 + (numbers[node.target] + 1) * _MARKER_STEP
            with marked.graph.inserting_before(node):
                mark = marked.graph.call_function(nn.functional.leaky_relu, (node.args[0], slope))
            node.replace_all_uses_with(mark)
    marked.graph.eliminate_dead_code()
    marked.delete_all_unused_submodules()
    marked.recompile()
    return marked.train(prepared.training)


def _strip_markers(content: bytes) -> tuple[bytes, dict[str, int]]:
    """Return the model without its markers, and the number of the quantizer that each marked tensor belongs to."""
    import onnx

    model = onnx.load_from_string(content)
    renamed: dict[str, str] = {}
    marks: dict[str, int] = {}
    kept = []
    for node in model.graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        number = _marker(node)
        if number is None:
            kept.append(node)
        else:
            renamed[node.output[0]] = node.input[0]
            marks[node.input[0]] = number
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.ClearField("value_info")
    stripped: bytes = model.SerializeToString(deterministic=True)
    return stripped, marks


def _integer_tensors(content: bytes) -> dict[str, str]:
    """Return the tensor of integers that was written for each tensor with a grid."""
    import onnx

    nodes = onnx.load_from_string(content).graph.node
    clipped = {node.input[0]: node.output[0] for node in nodes if node.op_type == "Clip"}
    written = [node for node in nodes if node.op_type == "QuantizeLinear"]
    return {node.name.removesuffix("_quantized"): clipped.get(node.output[0], node.output[0]) for node in written}


def _marker(node: Any) -> int | None:
    if node.op_type != "LeakyRelu":
        return None
    slope = next((attribute.f for attribute in node.attribute if attribute.name == "alpha"), 0.0)
    number = round((slope - 1.0) / _MARKER_STEP) - 1
    return number if 0 <= number < _MOST_MARKERS else None


def _match(
    graph: Graph, prepared: "nn.Module", activations: Mapping[str, Grid]
) -> "list[tuple[Layer, QuantizedProduct]]":
    """Return the layer that each product became: the one with its weight, in the order of the graph if several."""
    found: dict[bytes, list[Layer]] = {}
    for layer in graph.layers:
        found.setdefault(_key(graph.rows(layer)), []).append(layer)
    matched = []
    for product in products(prepared).values():
        weight, _ = product.quantized_weight()
        layers = found.get(_key(weight.real().reshape(len(weight.values), -1)), [])
        if not layers:
            raise ModelError(
                f"{product.name} must be a product with a constant weight in the exported graph. Got none."
            )
        layer = layers.pop(0)
        if layer.input not in activations:
            raise ModelError(f"the input of {product.name} must be {layer.input!r}'s grid in the exported graph.")
        matched.append((layer, product))
    return matched


def _key(rows: NDArray[np.float32]) -> bytes:
    return hashlib.sha256(f"{rows.shape}".encode() + np.ascontiguousarray(rows).tobytes()).digest()


def _stored(graph: Graph, layer: Layer, product: "QuantizedProduct") -> QuantizedTensor:
    """Return a product's integers in the layout of the exported graph."""
    weight, _ = product.quantized_weight()
    values = graph.from_rows(layer, weight.values.reshape(len(weight.values), -1))
    return QuantizedTensor(
        values=values, grid=replace(weight.grid, scheme=replace(weight.grid.scheme, axis=layer.output_axis))
    )

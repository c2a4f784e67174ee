"""Weights in 4 or 8 bits, products in fp32: for models that wait for memory rather than for multiplications.

Every `group_size` neighbouring weights of a row have a scale and a zero point of their own, so that an outlier only
coarsens its own group. The runtime unpacks them as it multiplies (ONNX Runtime's MatMulNBits). A matrix of B bits in
groups of g takes B + (32 + B) / g bits a weight: 5.1 for 4 bits in groups of 32.

It does not help where inputs come in large batches (multiplications decide, INT8 is faster), nor for convolutions
(there is no kernel). `accuracy_level` 4 lets the kernel round activations to 8 bits on its way: faster where
processors multiply bytes well, and a little less exact. Which is better here is for the caller to measure.

Source: ONNX Runtime, contrib operators, MatMulNBits. Rounding: `gptq`, `grid_search`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.affine import QuantizedTensor, Scheme, quantize
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.gptq import gptq, hessian
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.grid_search import search_grid
from halve.techniques.compression.quantization.nodes import remove_unused, replace_field
from halve.techniques.compression.quantization.sampling import sample_inputs

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

GroupRounding = Literal["nearest", "gptq"]
OPERATORS = ("Gemm", "MatMul")
GROUP_SIZES = (16, 32, 64, 128, 256)
DOMAIN = "com.microsoft"


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightOnly:
    """The model, and which layers have their weights in integers.

    Args:
        content: The ONNX model.
        layers: What each layer's weight became, as rows (output channels, inputs), by layer name.
    """

    content: bytes
    layers: dict[str, QuantizedTensor]


def quantize_weight_only(
    graph: Graph,
    *,
    bits: int = 4,
    group_size: int = 32,
    method: GroupRounding = "nearest",
    batches: Batches = (),
    accuracy_level: int = 0,
) -> WeightOnly:
    """Return the model with the weights of its Gemm and MatMul layers in groups of integers.

    Args:
        graph: The fp32 model; it is not changed.
        bits: 4 or 8.
        group_size: 16, 32, 64, 128 or 256 weights per scale.
        method: `nearest` rounds each weight on the best grid; `gptq` looks at the layer's inputs.
        batches: Calibration inputs; needed by `gptq`.
        accuracy_level: 0 computes in fp32; 4 lets the kernel round activations to 8 bits.

    Raises:
        InvalidParameterError: If a number is none of these, or `gptq` gets no batch.
        ModelError: If the model has no Gemm or MatMul with constant weights.
    """
    rules = (
        ("bits", bits in (4, 8), "4 or 8", bits),
        ("group_size", group_size in GROUP_SIZES, f"one of {GROUP_SIZES}", group_size),
        ("method", method in ("nearest", "gptq"), "nearest or gptq", method),
        ("batches", method == "nearest" or bool(batches), "at least one for gptq", len(batches)),
        ("accuracy_level", accuracy_level in (0, 4), "0 or 4", accuracy_level),
    )
    for name, holds, rule, value in rules:
        if not holds:
            raise InvalidParameterError(name, rule=rule, value=value)
    layers = [layer for layer in graph.layers if layer.operator in OPERATORS]
    if not layers:
        raise ModelError(f"the model must hold {' or '.join(OPERATORS)} with constant weights. It holds none.")
    scheme = Scheme(bits=bits, symmetric=False, signed=False, narrow=False, group_size=group_size)
    rounded = _rounded(graph, layers, scheme, method=method, batches=batches)
    return WeightOnly(content=_written(graph, layers, rounded, accuracy_level=accuracy_level), layers=rounded)


def _rounded(
    graph: Graph, layers: list[Layer], scheme: Scheme, *, method: GroupRounding, batches: Batches
) -> dict[str, QuantizedTensor]:
    inputs = sample_inputs(graph, layers, batches) if method == "gptq" else {}
    rounded = {}
    for layer in layers:
        rows = graph.rows(layer)
        if method == "gptq":
            rounded[layer.name] = gptq(rows, hessian(inputs[layer.name]), scheme, scale_search=True)
        else:
            grid = search_grid(rows, scheme)
            rounded[layer.name] = QuantizedTensor(values=quantize(rows, grid), grid=grid)
    return rounded


def _written(graph: Graph, layers: list[Layer], rounded: dict[str, QuantizedTensor], *, accuracy_level: int) -> bytes:
    """Put a MatMulNBits in the place of every layer, and an Add behind it for a Gemm's bias."""
    from onnx import helper

    model = graph.copy().proto
    by_name = {layer.name: layer for layer in layers}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        layer = by_name.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        model.graph.initializer.extend(_tensors(layer, rounded[layer.name]))
        needs_bias = layer.operator == "Gemm" and layer.bias is not None
        output = f"{layer.output}_without_bias" if needs_bias else layer.output
        nodes.append(_product(layer, rounded[layer.name], output, accuracy_level=accuracy_level))
        if needs_bias:
            nodes.append(helper.make_node("Add", [output, layer.bias], [layer.output], name=f"{layer.name}_bias"))
    replace_field(model.graph.node, nodes)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    remove_unused(model.graph)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _product(layer: Layer, weight: QuantizedTensor, output: str, *, accuracy_level: int) -> "NodeProto":
    from onnx import helper

    channels, inputs = weight.values.shape
    return helper.make_node(
        "MatMulNBits",
        [layer.input, f"{layer.weight}_packed", f"{layer.weight}_scales", f"{layer.weight}_zero_points"],
        [output],
        name=layer.name,
        domain=DOMAIN,
        K=inputs,
        N=channels,
        bits=weight.grid.scheme.bits,
        block_size=weight.grid.scheme.group_size,
        accuracy_level=accuracy_level,
    )


def _tensors(layer: Layer, weight: QuantizedTensor) -> "list[TensorProto]":
    """Return integers (channels, groups, bytes), scales and zero points, as the kernel reads them."""
    from onnx import numpy_helper

    size, bits = weight.grid.scheme.group_size or 1, weight.grid.scheme.bits
    channels, inputs = weight.values.shape
    groups = -(-inputs // size)
    # The last group is filled up with its zero point, the integer that stands for 0.
    padded = np.repeat(weight.grid.zero_point.astype(np.uint8), size, axis=1)
    padded[:, :inputs] = weight.values
    values = _packed(padded.reshape(channels * groups, size), bits).reshape(channels, groups, -1)
    zero_points = _packed(weight.grid.zero_point.astype(np.uint8), bits)
    return [
        numpy_helper.from_array(values, f"{layer.weight}_packed"),
        numpy_helper.from_array(weight.grid.scale.reshape(-1), f"{layer.weight}_scales"),
        numpy_helper.from_array(zero_points.reshape(-1), f"{layer.weight}_zero_points"),
    ]


def _packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return rows of bytes: with 4 bits two numbers to a byte, the first in the low half."""
    if bits == 8:
        return values
    even = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    packed: NDArray[np.uint8] = even[:, 0::2] | np.left_shift(even[:, 1::2], 4)
    return packed

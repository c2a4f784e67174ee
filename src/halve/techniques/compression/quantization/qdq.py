"""Integers into an ONNX model: QuantizeLinear and DequantizeLinear around what is to run in 8 bits (QDQ form).

The model keeps its operators; pairs of Q and DQ say which tensors lie on which grid, and the runtime replaces
DQ -> Conv -> Q by one integer kernel. The file means the same to every runtime that knows ONNX.

    x -> Q -> DQ -> Conv -> Q -> DQ -> ...
         int8 weight -> DQ ^
         int32 bias  -> DQ ^        scale s_x s_w, so that it is added to the sum of products as it is

A ReLU or Clip that the grid behind it does anyway is left out: quantization clips too. Activations of fewer than 8
bits are bytes whose values a Clip keeps in the small range: the 8-bit kernels carry them. Weights of at most 4 bits
are packed two to a byte; a Cast, which the runtime folds when it loads the model, makes bytes of them. Both save
memory, not multiplications, on a processor without 4-bit arithmetic.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Grid, QuantizedTensor
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.integer_bias import integer_bias
from halve.techniques.compression.quantization.nodes import (
    opset,
    remove_unused,
    replace_field,
    tensor_names,
    unique,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

PACKED_BITS = 4
"""Weights of at most so many bits are stored as ONNX INT4."""

PACKED_OPSET = 21
"""The first opset with INT4."""

CHANGED_BEFORE_PACKED = frozenset({"GridSample", "GroupNormalization"})
"""Operators that mean something else in PACKED_OPSET than in an opset before it; a model with one is not packed."""

CARRIERS = frozenset({"Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""What moves numbers without making new ones: on one grid before and after, they stay bytes."""


def write_qdq(
    graph: Graph,
    *,
    weights: Mapping[str, QuantizedTensor],
    activations: Mapping[str, Grid],
    only_products: bool = False,
) -> bytes:
    """Return the model with integers in it; the graph is not changed.

    A layer runs in integers if it is in `weights` and its input in `activations`; in `weights` alone, its weight is
    stored in integers and multiplied in fp32. A Conv needs a grid on its output too (or on that of its ReLU), or
    there is no integer kernel for it. Of a dense layer in `weights` alone onnxruntime makes MatMulNBits, which rounds
    activations as it runs unless the session option `session.qdq_matmulnbits_accuracy_level` is 1. On x86 it has
    no integer kernel for int8 activations that two operators read: take uint8. The same arguments give the same bytes.

    Args:
        graph: The fp32 model.
        weights: By layer name, in the stored layout; symmetric, one scale, or one per output channel.
        activations: By tensor name, one scale.
        only_products: Whether only layers in `weights` see an activation on its grid; else every reader does.

    Raises:
        InvalidParameterError: If a name is not in the model, or a grid does not fit its tensor.
    """
    layers = {layer.name: layer for layer in graph.layers}
    for name, weight in weights.items():
        _check_weight(layers, name, weight)
    for name, grid in activations.items():
        _check_activation(graph, name, grid)
    writer = _Writer(graph.copy(), packed=_packable(graph.proto))
    for name, layer in layers.items():
        if name in weights:
            writer.store(layer, weights[name], activations.get(layer.input))
    readers = frozenset(weights) if only_products else None
    for name, grid in activations.items():
        writer.round_activation(name, grid, readers=readers, others=activations)
    return writer.finished()


def needed_grids(graph: Graph, *, weights: Collection[str], activations: Mapping[str, Grid]) -> dict[str, Grid]:
    """Return the grids that an integer kernel reads or writes: the others would cost time and accuracy for nothing.

    For models of which some layers stay in fp32. Needed are the inputs of layers in integers, the outputs of
    convolutions in integers, and what operators between make of tensors that are in bytes already.

    Args:
        graph: The fp32 model.
        weights: Names of the layers in integers.
        activations: All grids.
    """
    layers = {layer.name: layer for layer in graph.layers}
    needed = {layers[name].input for name in weights if name in layers} & set(activations)
    for node in graph.proto.graph.node:
        output = _behind_rectifier(graph, node, activations)
        if node.name in layers:
            made = node.op_type == "Conv" and node.name in weights and layers[node.name].input in activations
        else:
            made = {name for name in node.input if name and not graph.is_constant(name)} <= needed and bool(node.input)
        if made and output in activations:
            needed.add(output)
    return {name: grid for name, grid in activations.items() if name in needed}


def _behind_rectifier(graph: Graph, node: "NodeProto", activations: Mapping[str, Grid]) -> str:
    """Return the node's output; that of the ReLU or Clip behind it, where only that has a grid."""
    output = str(node.output[0])
    readers = graph.consumers(output)
    if output not in activations and len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        return str(readers[0].output[0])
    return output


def _check_weight(layers: Mapping[str, Layer], name: str, weight: QuantizedTensor) -> None:
    if name not in layers:
        raise InvalidParameterError("weights", rule=f"named like layers, {sorted(layers)}", value=name)
    layer, grid = layers[name], weight.grid
    scheme, owner = grid.scheme, f"weights[{name!r}]"
    if weight.values.shape != layer.shape:
        raise InvalidParameterError(owner, rule=f"of shape {layer.shape}", value=weight.values.shape)
    if scheme.group_size is not None or not scheme.signed or np.any(grid.zero_point):
        raise InvalidParameterError(owner, rule="on a symmetric grid without groups", value=str(scheme))
    if scheme.axis is not None and scheme.axis % len(layer.shape) != layer.output_axis:
        rule = f"on a grid of one scale, or one per index of axis {layer.output_axis}"
        raise InvalidParameterError(owner, rule=rule, value=scheme.axis)
    expected = () if scheme.axis is None else (layer.channels,)
    if grid.scale.shape != expected:
        raise InvalidParameterError(owner, rule=f"on a grid with scales of shape {expected}", value=grid.scale.shape)
    if np.any((weight.values < scheme.lowest) | (weight.values > scheme.highest)):
        value = (int(weight.values.min()), int(weight.values.max()))
        raise InvalidParameterError(owner, rule=f"integers from {scheme.lowest} to {scheme.highest}", value=value)


def _check_activation(graph: Graph, name: str, grid: Grid) -> None:
    if graph.producer(name) is None and name not in graph.inputs:
        raise InvalidParameterError("activations", rule="named like tensors of the model", value=name)
    if grid.scale.shape != ():
        raise InvalidParameterError(f"activations[{name!r}]", rule="of one scale", value=grid.scale.shape)


def _packable(model: "ModelProto") -> bool:
    """Whether a model means the same in the opset that has INT4."""
    found = {node.op_type for node in model.graph.node}
    return opset(model) >= PACKED_OPSET or not found & CHANGED_BEFORE_PACKED


class _Writer:
    """A model while integers are written into it.

    Args:
        graph: A copy of the fp32 model, which is changed.
        packed: Whether weights of few bits may be packed.
    """

    def __init__(self, graph: Graph, *, packed: bool) -> None:
        self._graph = graph
        self._can_pack = packed
        self._is_packed = False
        self._taken = tensor_names(graph.proto.graph)
        self._inputs = {node.name: list(node.input) for node in graph.proto.graph.node}
        self._before: dict[str, list[NodeProto]] = {}
        self._after: dict[str, list[NodeProto]] = {}

    def store(self, layer: Layer, weight: QuantizedTensor, activation: Grid | None) -> None:
        """Put integers in the place of a layer's weight and, if its input has a grid, of its bias."""
        node = self._graph.node(layer.name)
        added: list[NodeProto] = []
        if activation is not None and layer.bias is not None and layer.bias in node.input:
            bias = self._graph.constant(layer.bias)
            weight, values = integer_bias(weight, bias, float(activation.scale))
            scale = np.broadcast_to(activation.scale * weight.grid.scale, bias.shape).astype(np.float32)
            integers = self._constant(f"{layer.bias}_integers", values)
            node.input[2] = self._dequantized(layer.bias, integers, scale, np.int32, axis=0, added=added)
        scheme = weight.grid.scheme
        if scheme.bits <= PACKED_BITS and self._can_pack:
            integers = self._unpacked(layer.weight, weight.values, added=added)
        else:
            integers = self._constant(f"{layer.weight}_integers", weight.values.astype(np.int8))
        axis = None if scheme.axis is None else layer.output_axis
        node.input[1] = self._dequantized(layer.weight, integers, weight.grid.scale, np.int8, axis=axis, added=added)
        self._before[layer.name] = added

    def round_activation(
        self, tensor: str, grid: Grid, *, readers: Collection[str] | None, others: Mapping[str, Grid]
    ) -> None:
        """Let the readers of a tensor see it on its grid; an output of the model stays what it was."""
        from onnx import helper

        everyone = self._graph.consumers(tensor)
        reading = [node for node in everyone if readers is None or node.name in readers]
        if not reading:
            return
        source = self._before_rectifier(tensor, grid, others) if len(reading) == len(everyone) else tensor
        kind = np.int8 if grid.scheme.signed else np.uint8
        scale = self._constant(f"{tensor}_scale", grid.scale)
        zero_point = self._constant(f"{tensor}_zero_point", grid.zero_point.astype(kind))
        quantized, rounded = self._name(f"{tensor}_quantized"), self._name(f"{tensor}_rounded")
        nodes = [helper.make_node("QuantizeLinear", [source, scale, zero_point], [quantized], name=quantized)]
        limits = grid.scheme.lowest, grid.scheme.highest
        if limits != (np.iinfo(kind).min, np.iinfo(kind).max) and not self._is_carried(tensor, grid, others):
            lowest, highest = (self._constant(f"{tensor}_limit", np.asarray(limit, kind)) for limit in limits)
            clipped = self._name(f"{tensor}_clipped")
            nodes.append(helper.make_node("Clip", [quantized, lowest, highest], [clipped], name=clipped))
            quantized = clipped
        nodes.append(helper.make_node("DequantizeLinear", [quantized, scale, zero_point], [rounded], name=rounded))
        for node in reading:
            replace_field(node.input, [rounded if name == tensor else name for name in node.input])
        self._after[tensor] = nodes

    def finished(self) -> bytes:
        """Return the model's bytes: nodes in topological order, what nothing reads left out."""
        proto = self._graph.proto
        nodes = [new for name in self._graph.inputs for new in self._after.get(name, [])]
        for node in proto.graph.node:
            nodes += [*self._before.get(node.name, []), node]
            nodes += [new for name in node.output for new in self._after.get(name, [])]
        replace_field(proto.graph.node, nodes)
        remove_unused(proto.graph)
        if self._is_packed:
            for entry in proto.opset_import:
                if entry.domain in ("", "ai.onnx"):
                    entry.version = max(entry.version, PACKED_OPSET)
        return self._graph.to_bytes()

    def _before_rectifier(self, tensor: str, grid: Grid, others: Mapping[str, Grid]) -> str:
        """Return the tensor before a ReLU or Clip that clips no number which the grid would not clip too."""
        node = self._graph.producer(tensor)
        if node is None or node.op_type not in ("Relu", "Clip") or tensor in self._graph.outputs:
            return tensor
        source = self._inputs[node.name][0]
        if source in others or source in self._graph.outputs or len(self._graph.consumers(source)) != 1:
            return tensor
        low, high = self._limits(node)
        scale, zero_point = float(grid.scale), float(grid.zero_point)
        below = np.rint(np.float32(low) / np.float32(scale)) + zero_point
        above = np.rint(np.float32(high) / np.float32(scale)) + zero_point
        return source if below <= grid.scheme.lowest and above >= grid.scheme.highest else tensor

    def _limits(self, node: "NodeProto") -> tuple[float, float]:
        """Return between which numbers a ReLU or Clip lets pass; nothing, if they are not constant."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        names = [*node.input[1:], "", ""][:2]
        if any(name and not self._graph.is_constant(name) for name in names):
            return np.inf, -np.inf
        low, high = names
        return (
            float(self._graph.constant(low)) if low else -np.inf,
            float(self._graph.constant(high)) if high else np.inf,
        )

    def _is_carried(self, tensor: str, grid: Grid, others: Mapping[str, Grid]) -> bool:
        """Whether a tensor's numbers come from a tensor on the very same grid, so that they are in range already."""
        node = self._graph.producer(tensor)
        if node is None or node.op_type not in CARRIERS:
            return False
        source = others.get(self._inputs[node.name][0])
        if source is None or source.scheme != grid.scheme:
            return False
        return bool(source.scale == grid.scale and source.zero_point == grid.zero_point)

    def _unpacked(self, name: str, values: NDArray[Any], *, added: "list[NodeProto]") -> str:
        """Store integers two to a byte; return the tensor that holds them one to a byte."""
        from onnx import TensorProto, helper

        packed, integers = self._name(f"{name}_packed"), self._name(f"{name}_integers")
        self._graph.proto.graph.initializer.append(packed_tensor(packed, values))
        added.append(helper.make_node("Cast", [packed], [integers], name=integers, to=TensorProto.INT8))
        self._is_packed = True
        return integers

    def _dequantized(
        self, name: str, integers: str, scale: NDArray[Any], kind: type, *, axis: int | None, added: "list[NodeProto]"
    ) -> str:
        """Append a DequantizeLinear without zero point (all zero); return the tensor that it writes."""
        from onnx import helper

        scales = self._constant(f"{name}_scale", np.asarray(scale, np.float32))
        zeros = self._constant(f"{name}_zero_point", np.zeros(np.shape(scale), kind))
        real = self._name(f"{name}_real")
        options = {} if axis is None else {"axis": axis}
        added.append(helper.make_node("DequantizeLinear", [integers, scales, zeros], [real], name=real, **options))
        return real

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        unused = self._name(name)
        self._graph.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), unused))
        return unused

    def _name(self, name: str) -> str:
        return unique(name, self._taken)


def packed_tensor(name: str, values: NDArray[Any]) -> "TensorProto":
    """Return integers from -8 to 7 as an ONNX INT4 tensor: two to a byte, the first in the low half."""
    from onnx import TensorProto, helper

    nibbles = values.astype(np.int8).ravel().view(np.uint8) & 0x0F
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
    content = (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
    return helper.make_tensor(name, TensorProto.INT4, list(values.shape), content, raw=True)

"""Integers into an ONNX model: QuantizeLinear and DequantizeLinear around what is to run in 8 bits (QDQ form).

The model keeps its operators; pairs of Q and DQ say which tensors lie on which grid, and the runtime replaces
DQ -> Conv -> Q by one integer kernel. The file means the same to every runtime that knows ONNX.

    x -> Q -> DQ -> Conv -> (Relu) -> Q -> DQ -> ...
         int8 weight -> DQ ^
         int32 bias  -> DQ ^        scale s_x s_w, so that it is added to the sum of products as it is

Activations of fewer than 8 bits are bytes whose values a Clip keeps in the small range: the 8-bit kernels carry
them. Weights of at most 4 bits are packed two to a byte; a Cast, which the runtime folds when it loads the model,
makes bytes of them. Both save memory, not multiplications, on a processor without 4-bit arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Grid, QuantizedTensor
from halve.techniques.compression.quantization.graph import Graph, Layer

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

PACKED_BITS = 4
"""Weights of at most so many bits are stored as ONNX INT4."""

PACKED_OPSET = 21
"""The first opset with INT4."""


def write_qdq(
    graph: Graph,
    *,
    weights: Mapping[str, QuantizedTensor],
    activations: Mapping[str, Grid],
    only_products: bool = False,
) -> bytes:
    """Return the model with integers in it; the graph is not changed.

    A layer runs in integers if it is in `weights` and its input in `activations`; in `weights` alone, its weight is
    stored in integers and multiplied in fp32.

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
    surgery = _Surgery(graph.copy(), is_packed=any(w.grid.scheme.bits <= PACKED_BITS for w in weights.values()))
    for name, weight in weights.items():
        surgery.store_weight(layers[name], weight)
        if layers[name].input in activations:
            surgery.store_bias(layers[name], weight, activations[layers[name].input])
    readers = frozenset(weights) if only_products else None
    for name, grid in activations.items():
        surgery.round_activation(name, grid, readers=readers)
    return surgery.finished()


def _check_weight(layers: Mapping[str, Layer], name: str, weight: QuantizedTensor) -> None:
    if name not in layers:
        raise InvalidParameterError("weights", rule=f"named like layers, {sorted(layers)}", value=name)
    layer, scheme = layers[name], weight.grid.scheme
    if weight.values.shape != layer.shape:
        raise InvalidParameterError(f"weights[{name!r}]", rule=f"of shape {layer.shape}", value=weight.values.shape)
    if scheme.axis is not None and scheme.axis % len(layer.shape) != layer.output_axis:
        rule = f"per tensor, or along the output axis {layer.output_axis}"
        raise InvalidParameterError(f"scheme of {name!r}", rule=rule, value=scheme.axis)
    if scheme.group_size is not None or not scheme.signed or np.any(weight.grid.zero_point):
        raise InvalidParameterError(f"scheme of {name!r}", rule="symmetric, and without groups", value=str(scheme))


def _check_activation(graph: Graph, name: str, grid: Grid) -> None:
    if graph.producer(name) is None and name not in graph.inputs:
        raise InvalidParameterError("activations", rule="named like tensors of the model", value=name)
    if grid.scale.shape != ():
        raise InvalidParameterError(f"activations[{name!r}]", rule="one scale", value=grid.scale.shape)


@dataclass
class _Surgery:
    """A model while it is changed."""

    graph: Graph
    is_packed: bool
    _before: "dict[str, list[NodeProto]]" = field(default_factory=dict)
    _after: "dict[str, list[NodeProto]]" = field(default_factory=dict)

    def store_weight(self, layer: Layer, weight: QuantizedTensor) -> None:
        """Put integers and their grid in the place of an fp32 weight."""
        scheme = weight.grid.scheme
        values, nodes = f"{layer.weight}_integers", []
        if scheme.bits <= PACKED_BITS:
            from onnx import TensorProto, helper

            self._add(_packed(f"{layer.weight}_packed", weight.values))
            nodes.append(helper.make_node("Cast", [f"{layer.weight}_packed"], [values], to=TensorProto.INT8))
        else:
            self._add_array(values, weight.values.astype(np.int8))
        axis = None if scheme.axis is None else layer.output_axis
        nodes.append(self._dequantize(layer.weight, values, weight.grid.scale, np.int8, axis=axis))
        self._feed(layer, layer.weight, nodes)

    def store_bias(self, layer: Layer, weight: QuantizedTensor, activation: Grid) -> None:
        """Put int32 on the grid of the products in the place of an fp32 bias that is an input of the layer."""
        node = self._node(layer)
        if layer.bias is None or layer.bias not in node.input or _beta(node) != 1.0:
            return
        bias = self.graph.constant(layer.bias)
        channels = layer.shape[layer.output_axis]
        if bias.shape != (channels,):
            return
        scale = activation.scale * np.broadcast_to(weight.grid.scale, (channels,)).astype(np.float32)
        info = np.iinfo(np.int32)
        values = np.clip(np.rint(bias.astype(np.float64) / scale), info.min, info.max).astype(np.int32)
        name = f"{layer.bias}_of_{layer.name}"
        self._add_array(f"{name}_integers", values)
        self._feed(layer, layer.bias, [self._dequantize(name, f"{name}_integers", scale, np.int32, axis=0)])

    def round_activation(self, tensor: str, grid: Grid, *, readers: frozenset[str] | None) -> None:
        """Let the readers of a tensor see it on its grid; the model's own output stays what it was."""
        from onnx import helper

        kind = np.int8 if grid.scheme.signed else np.uint8
        reading = [node for node in self.graph.consumers(tensor) if readers is None or node.name in readers]
        if not reading:
            return
        scale, zero = self._grid_names(tensor, grid.scale, grid.zero_point.astype(kind))
        quantized = f"{tensor}_quantized"
        nodes = [helper.make_node("QuantizeLinear", [tensor, scale, zero], [quantized], name=quantized)]
        if (grid.scheme.lowest, grid.scheme.highest) != (np.iinfo(kind).min, np.iinfo(kind).max):
            self._add_array(f"{tensor}_lowest", np.asarray(grid.scheme.lowest, kind))
            self._add_array(f"{tensor}_highest", np.asarray(grid.scheme.highest, kind))
            limits = [f"{tensor}_lowest", f"{tensor}_highest"]
            nodes.append(
                helper.make_node("Clip", [quantized, *limits], [f"{tensor}_clipped"], name=f"{tensor}_clipped")
            )
            quantized = f"{tensor}_clipped"
        rounded = f"{tensor}_rounded"
        nodes.append(helper.make_node("DequantizeLinear", [quantized, scale, zero], [rounded], name=rounded))
        for node in reading:
            for position, name in enumerate(node.input):
                if name == tensor:
                    node.input[position] = rounded
        self._after[tensor] = nodes

    def finished(self) -> bytes:
        """Return the changed model's bytes, nodes in topological order, unused constants left out."""
        model = self.graph.proto
        nodes = [new for name in self.graph.inputs for new in self._after.get(name, [])]
        for node in model.graph.node:
            nodes += [*self._before.get(node.name, []), node]
            nodes += [new for name in node.output for new in self._after.get(name, [])]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input} | set(self.graph.outputs)
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        del model.graph.value_info[:]
        if self.is_packed:
            _raise_opset(model)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _node(self, layer: Layer) -> "NodeProto":
        node = self.graph.producer(layer.output)
        if node is None:
            raise LookupError(f"layer {layer.name} has no node")
        return node

    def _feed(self, layer: Layer, constant: str, nodes: "list[NodeProto]") -> None:
        node = self._node(layer)
        for position, name in enumerate(node.input):
            if name == constant and position > 0:
                node.input[position] = nodes[-1].output[0]
        self._before.setdefault(layer.name, []).extend(nodes)

    def _dequantize(self, name: str, values: str, scale: NDArray[Any], kind: type, *, axis: int | None) -> "NodeProto":
        from onnx import helper

        scales, zeros = self._grid_names(name, scale, np.zeros(scale.shape, kind))
        given = {} if axis is None else {"axis": axis}
        real = f"{name}_real"
        return helper.make_node("DequantizeLinear", [values, scales, zeros], [real], name=real, **given)

    def _grid_names(self, name: str, scale: NDArray[Any], zero_point: NDArray[Any]) -> tuple[str, str]:
        self._add_array(f"{name}_scale", np.asarray(scale, np.float32))
        self._add_array(f"{name}_zero_point", zero_point)
        return f"{name}_scale", f"{name}_zero_point"

    def _add_array(self, name: str, value: NDArray[Any]) -> None:
        from onnx import numpy_helper

        self._add(numpy_helper.from_array(np.array(value), name))

    def _add(self, tensor: "TensorProto") -> None:
        self.graph.proto.graph.initializer.append(tensor)


def _packed(name: str, values: NDArray[Any]) -> "TensorProto":
    """Return an INT4 tensor: two values to a byte, the first in the low half."""
    from onnx import TensorProto, helper

    nibbles = values.astype(np.int8).ravel().view(np.uint8) & 0x0F
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    content = (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
    return helper.make_tensor(name, TensorProto.INT4, list(values.shape), content, raw=True)


def _beta(node: "NodeProto") -> float:
    return next((attribute.f for attribute in node.attribute if attribute.name == "beta"), 1.0)


def _raise_opset(model: Any) -> None:
    """Declare the opset that knows INT4; what the model uses of older ones means the same there."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, PACKED_OPSET)
    model.ir_version = max(model.ir_version, 10)

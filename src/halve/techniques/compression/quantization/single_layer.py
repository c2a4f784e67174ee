"""One layer cut out of its network, in fp32 and in integers, as it would stand there.

Between two products in integers, onnxruntime keeps bytes: ReLU, pooling, additions and reshapes are computed on
them or vanish. There the layer reads or writes bytes; elsewhere the conversion from or to fp32 belongs to it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.techniques.compression.quantization.affine import (
    ACTIVATIONS,
    WEIGHTS,
    grid_of_tensor,
    quantize,
    quantize_tensor,
)
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.qdq import write_qdq

if TYPE_CHECKING:
    from onnx import ModelProto

KEEPS_INTEGERS = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "Identity", "MaxPool"}
    | {"Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that onnxruntime computes on bytes, or drops, between two products in integers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SingleLayer:
    """A model of one layer.

    Args:
        name: The layer's.
        graph: The layer, with its bias, and nothing else.
        feed: Its real fp32 input, by tensor name.
        written: What it writes for that, fp32.
        reads_integers, writes_integers: Whether its neighbours in the network can be in integers too.
    """

    name: str
    graph: Graph
    feed: Mapping[str, NDArray[np.float32]]
    written: NDArray[np.float32]
    reads_integers: bool
    writes_integers: bool

    @property
    def kind(self) -> tuple[object, ...]:
        """What its speed depends on, values apart."""
        (layer,), nodes = self.graph.layers, self.graph.proto.graph.node
        attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in nodes[0].attribute))
        edges = (self.reads_integers, self.writes_integers)
        return layer.operator, attributes, layer.shape, layer.bias is not None, self.feed[layer.input].shape, edges

    def in_integers(self, weight_bits: int) -> tuple[bytes, dict[str, NDArray[Any]]]:
        """Return the INT8 model, and what to feed it: bytes where it reads integers."""
        import onnx

        (layer,) = self.graph.layers
        grid = grid_of_tensor(self.feed[layer.input], ACTIVATIONS)
        scheme = replace(WEIGHTS, bits=weight_bits, axis=layer.output_axis)
        weight = quantize_tensor(self.graph.constant(layer.weight), scheme)
        content = write_qdq(self.graph, weights={layer.name: weight}, activations={layer.input: grid})
        model = onnx.load_from_string(content)
        feed: dict[str, NDArray[Any]] = dict(self.feed)
        if self.reads_integers:
            feed = {_read_bytes(model): quantize(self.feed[layer.input], grid)}
        if self.writes_integers or layer.operator == "Conv":  # a Conv has no integer kernel that writes fp32
            self._round_output(model)
        integers: bytes = model.SerializeToString(deterministic=True)
        return integers, feed

    def _round_output(self, model: "ModelProto") -> None:
        from onnx import TensorProto, helper, numpy_helper

        (output,) = model.graph.output
        grid = grid_of_tensor(self.written, ACTIVATIONS)
        constants = {"output_scale": grid.scale, "output_zero_point": grid.zero_point.astype(np.uint8)}
        model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())
        model.graph.node.append(helper.make_node("QuantizeLinear", [output.name, *constants], ["output_bytes"]))
        output.name, output.type.tensor_type.elem_type = "output_bytes", TensorProto.UINT8
        if not self.writes_integers:
            model.graph.node.append(helper.make_node("DequantizeLinear", ["output_bytes", *constants], ["output_real"]))
            output.name, output.type.tensor_type.elem_type = "output_real", TensorProto.FLOAT


def touched(graph: Graph) -> set[str]:
    """Return the tensors whose values `cut_out` needs: what layers read and write."""
    return {name for layer in graph.layers for name in (layer.input, _output(graph, layer))}


def cut_out(graph: Graph, layer: Layer, values: Mapping[str, NDArray[Any]]) -> SingleLayer:
    """Return a layer alone.

    Args:
        graph: The fp32 model.
        layer: One of its layers.
        values: Of the tensors in `touched(graph)`.
    """
    output = _output(graph, layer)
    return SingleLayer(
        name=layer.name,
        graph=Graph(_model(graph, layer, values)),
        feed={layer.input: values[layer.input]},
        written=values[output],
        reads_integers=_comes_from_a_product(graph, layer.input),
        writes_integers=_goes_to_products(graph, output),
    )


def _output(graph: Graph, layer: Layer) -> str:
    """Return the tensor behind the layer's bias: for a MatMul with one, what the Add writes."""
    if layer.operator == "MatMul" and layer.bias is not None:
        added: str = graph.consumers(layer.output)[0].output[0]
        return added
    return layer.output


def _axes(graph: Graph, layer: Layer, value: NDArray[Any]) -> list[int | str]:
    """Return the shape to declare: open where the network's own is, as fixed shapes let the runtime fuse otherwise.

    With a fixed batch onnxruntime makes a Gemm between two Reshapes of a MatMul and its bias, and no integers of that.
    """
    dims = graph.proto.graph.input[0].type.tensor_type.shape.dim
    if dims and dims[0].dim_value > 0:
        return list(value.shape)
    fixed = value.ndim - 1 if layer.operator == "Conv" else 1
    return [f"axis_{axis}" if axis < value.ndim - fixed else size for axis, size in enumerate(value.shape)]


def _model(graph: Graph, layer: Layer, values: Mapping[str, NDArray[Any]]) -> "ModelProto":
    from onnx import TensorProto, helper, numpy_helper

    output = _output(graph, layer)
    written_by = [graph.producer(name) for name in dict.fromkeys((layer.output, output))]
    nodes = [copy.deepcopy(node) for node in written_by if node is not None]
    if layer.operator == "Gemm" and layer.bias is None:  # the third input, if any, is another tensor of the network
        del nodes[0].input[2:]
    constants = dict.fromkeys(name for node in nodes for name in node.input if name and graph.is_constant(name))
    body = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(layer.input, TensorProto.FLOAT, _axes(graph, layer, values[layer.input]))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, _axes(graph, layer, values[output]))],
        [numpy_helper.from_array(graph.constant(name), name) for name in constants],
    )
    return helper.make_model(body, opset_imports=graph.proto.opset_import, ir_version=graph.proto.ir_version)


def _comes_from_a_product(graph: Graph, tensor: str) -> bool:
    """Return whether a product wrote a tensor, with nothing between that needs fp32."""
    products = {_output(graph, layer) for layer in graph.layers} | {layer.output for layer in graph.layers}
    waiting, seen = [tensor], {tensor}
    while waiting:
        name = waiting.pop()
        if name in products:
            continue
        node = graph.producer(name)
        if node is None or node.op_type not in KEEPS_INTEGERS:
            return False
        before = {given for given in node.input if given and not graph.is_constant(given)} - seen
        waiting, seen = [*waiting, *sorted(before)], seen | before
    return True


def _goes_to_products(graph: Graph, tensor: str) -> bool:
    """Return whether only products read a tensor, with nothing between that needs fp32."""
    inputs = {layer.name for layer in graph.layers}
    waiting, seen = [tensor], {tensor}
    while waiting:
        name = waiting.pop()
        readers = graph.consumers(name)
        if name in graph.outputs or not readers:
            return False
        for node in readers:
            if node.name in inputs:
                continue
            if node.op_type not in KEEPS_INTEGERS:
                return False
            after = set(node.output) - seen
            waiting, seen = [*waiting, *sorted(after)], seen | after
    return True


def _read_bytes(model: "ModelProto") -> str:
    """Make the output of the input's QuantizeLinear the model's input; return its name."""
    from onnx import TensorProto

    (given,) = model.graph.input
    (node,) = (node for node in model.graph.node if node.input[0] == given.name)
    model.graph.node.remove(node)
    given.name, given.type.tensor_type.elem_type = node.output[0], TensorProto.UINT8
    return str(given.name)

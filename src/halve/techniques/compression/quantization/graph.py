"""An fp32 ONNX model for surgery: its products with constant weights, and the tensors between them.

Whatever wrote the file, `Graph.load` gives one normal form (see `loading`): constants are folded, batch
normalization is part of the convolution before it, a Gemm computes x W + b without factors, every node has a name
of its own and every layer a weight of its own. Methods read and set weights and biases here; `qdq` writes the integers.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import FloatArray
from halve.techniques.compression.quantization.loading import read_model
from halve.techniques.compression.quantization.nodes import attributes, used_names
from halve.techniques.compression.quantization.rows import patches, window_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One product with a constant weight.

    Args:
        name: Of its ONNX node; no other node has it.
        operator: `Conv`, `Gemm` or `MatMul`.
        input: The tensor that is multiplied.
        output: The tensor that the node writes; of a MatMul without the bias, which an Add brings.
        weight: Initializer, used by this layer alone.
        bias: Initializer of shape (output channels,), used by this layer alone: the third input of Conv and
            Gemm; for MatMul the constant of an Add that alone consumes the product.
        groups: Of a convolution, else 1.
        shape: Of the weight as stored.
        output_axis: The axis of the stored weight that counts output channels.
    """

    name: str
    operator: str
    input: str
    output: str
    weight: str
    bias: str | None
    groups: int
    shape: tuple[int, ...]
    output_axis: int

    @property
    def channels(self) -> int:
        """The number of output channels."""
        return self.shape[self.output_axis]


class Graph:
    """A model in normal form, with an index.

    Args:
        proto: In the normal form of `load`. Build another Graph if nodes are added or removed.
    """

    def __init__(self, proto: "ModelProto") -> None:
        self.proto = proto
        self._constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._nodes = {node.name: node for node in proto.graph.node}
        self._producers = {name: node for node in proto.graph.node for name in node.output if name}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in proto.graph.node:
            for name in dict.fromkeys(used_names(node)):
                self._consumers.setdefault(name, []).append(node)

    @classmethod
    def load(cls, source: Path | bytes) -> "Graph":
        """Read an ONNX model and bring it to normal form; it answers as before.

        Raises:
            ModelError: If it is no readable ONNX model, is quantized already, or a weight is NaN or infinite.
            MissingExtraError: If onnx or onnxruntime is not installed.
        """
        return cls(read_model(source))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        return tuple(value.name for value in self.proto.graph.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(value.name for value in self.proto.graph.output)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every product with a constant float32 weight, in the order in which they run."""
        found = (self._layer(node) for node in self.proto.graph.node)
        return tuple(layer for layer in found if layer is not None)

    def node(self, name: str) -> "NodeProto":
        """Return the node of this name."""
        return self._nodes[name]

    def consumers(self, tensor: str) -> "list[NodeProto]":
        """Return the nodes that read a tensor, each once; nodes whose inner graphs read it count."""
        return list(self._consumers.get(tensor, ()))

    def producer(self, tensor: str) -> "NodeProto | None":
        """Return the node that writes a tensor; None for inputs and constants."""
        return self._producers.get(tensor)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initializer."""
        return name in self._constants

    def constant(self, name: str) -> NDArray[Any]:
        """Return the value of an initializer.

        Raises:
            InvalidParameterError: If there is none of this name.
        """
        from onnx import numpy_helper

        value: NDArray[Any] = numpy_helper.to_array(self._constant(name))
        return value

    def set_constant(self, name: str, value: NDArray[Any]) -> None:
        """Replace the value of an initializer; it keeps its shape and type.

        Raises:
            InvalidParameterError: If there is none of this name, or the shape differs.
        """
        from onnx import numpy_helper

        tensor = self._constant(name)
        if tuple(tensor.dims) != np.shape(value):
            raise InvalidParameterError(
                f"constant {name!r}", rule=f"of shape {tuple(tensor.dims)}", value=np.shape(value)
            )
        kind = numpy_helper.to_array(tensor).dtype
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind), name))

    def copy(self) -> "Graph":
        """Return a graph that shares nothing with this one."""
        proto = type(self.proto)()
        proto.CopyFrom(self.proto)
        return Graph(proto)

    def to_bytes(self) -> bytes:
        """Return the ONNX file; the same graph gives the same bytes."""
        content: bytes = self.proto.SerializeToString(deterministic=True)
        return content

    def rows(self, layer: Layer, stored: NDArray[Any] | None = None) -> FloatArray:
        """Return the weight as (output channels, inputs per group * kernel).

        Args:
            layer: Whose weight.
            stored: Another array in the layout of the weight; None is the weight itself.
        """
        value = self.constant(layer.weight) if stored is None else stored
        rows: FloatArray = np.moveaxis(value, layer.output_axis, 0).reshape(layer.channels, -1)
        return rows

    def from_rows(self, layer: Layer, rows: NDArray[Any]) -> NDArray[Any]:
        """Return rows of any type in the layout in which the weight is stored."""
        shape = np.moveaxis(np.empty(layer.shape, np.bool_), layer.output_axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(rows.reshape(shape), 0, layer.output_axis))

    def input_rows(self, layer: Layer, tensor: FloatArray) -> list[FloatArray]:
        """Return what the rows of the weight are multiplied with, one array per group.

        Args:
            layer: Which multiplies.
            tensor: A value of its input.

        Returns:
            (n, inputs per group * kernel) per group: for a convolution one row per position of each image.
        """
        if layer.operator != "Conv":
            return [tensor.reshape(-1, tensor.shape[-1])]
        window = window_of(attributes(self.node(layer.name)), layer.shape[2:], tensor.shape[2:])
        return [patches(part, window) for part in np.split(tensor, layer.groups, axis=1)]

    def _constant(self, name: str) -> "TensorProto":
        if name not in self._constants:
            raise InvalidParameterError("constant", rule="the name of an initializer", value=name)
        return self._constants[name]

    def _layer(self, node: "NodeProto") -> Layer | None:
        """Return the node as a layer, if it is a product with one constant weight."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
            return None
        if self.is_constant(node.input[0]) or not self._is_weight(node):
            return None
        settings = attributes(node)
        if node.op_type == "Gemm" and settings.get("transA"):
            return None
        bias = None
        if node.op_type == "MatMul":
            bias = self._added(node)
        elif len(node.input) > 2 and node.input[2]:
            bias = node.input[2]
            if not self.is_constant(bias) or len(self._constants[bias].dims) != 1:
                return None
        is_by_rows = node.op_type == "Conv" or bool(settings.get("transB"))
        return Layer(
            name=node.name,
            operator=node.op_type,
            input=node.input[0],
            output=node.output[0],
            weight=node.input[1],
            bias=bias,
            groups=int(settings.get("group", 1)) if node.op_type == "Conv" else 1,
            shape=tuple(self._constants[node.input[1]].dims),
            output_axis=0 if is_by_rows else 1,
        )

    def _is_weight(self, node: "NodeProto") -> bool:
        tensor = self._constants.get(node.input[1])
        if tensor is None or tensor.data_type != tensor.FLOAT:
            return False
        return len(tensor.dims) >= 3 if node.op_type == "Conv" else len(tensor.dims) == 2

    def _added(self, node: "NodeProto") -> str | None:
        """Return the constant per channel that an Add alone adds to a MatMul."""
        product, channels = node.output[0], self._constants[node.input[1]].dims[1]
        readers = self.consumers(product)
        if len(readers) != 1 or readers[0].op_type != "Add" or product in self.outputs:
            return None
        others = [name for name in readers[0].input if self.is_constant(name)]
        return next((name for name in others if list(self._constants[name].dims) == [channels]), None)

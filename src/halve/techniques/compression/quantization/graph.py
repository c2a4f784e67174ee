"""An fp32 ONNX model opened for surgery: its products, their weights as matrices, what they read and write.

A product is a Conv, Gemm or MatMul whose weight is constant: what quantization is about. Everything else stays as
it is. Loading folds constants and batch norms through ONNX Runtime's own basic optimizer, which writes plain ONNX.
"""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FloatArray = NDArray[np.float32]
PRODUCTS = ("Conv", "Gemm", "MatMul")
OLDEST_OPSET = 13
"""From here on QuantizeLinear knows channels."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One product with a constant weight.

    Args:
        name: Of its node, unique.
        operator: `Conv`, `Gemm` or `MatMul`.
        input, output: Tensor names.
        weight: Initializer name; no other layer has it.
        bias: Initializer name: the third input of Conv and Gemm, for MatMul the constant of an Add that alone reads
            it; or None.
        groups: Of a Conv, else 1.
        shape: Of the weight as stored.
        output_axis: Axis of the stored weight that counts output channels.
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


class Graph:
    """A model, with the look-ups that surgery needs. Load it with `Graph.load`; change it through `set_constant`."""

    def __init__(self, proto: "ModelProto") -> None:
        self.proto = proto
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._producers: dict[str, NodeProto] = {}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in proto.graph.node:
            self._producers.update(dict.fromkeys(node.output, node))
            for name in dict.fromkeys(node.input):
                self._consumers.setdefault(name, []).append(node)
        self.inputs = tuple(value.name for value in proto.graph.input if value.name not in self._constants)
        self.outputs = tuple(value.name for value in proto.graph.output)
        self.layers = tuple(layer for node in proto.graph.node if (layer := self._layer(node)) is not None)

    @classmethod
    def load(cls, source: Path | bytes) -> "Graph":
        """Return a model with constants and batch norms folded and every node named.

        Raises:
            ModelError: If it is no readable ONNX file, is too old to be converted, or a weight is not finite.
            MissingExtraError: If onnx or onnxruntime is not installed.
        """
        name = "the model" if isinstance(source, bytes) else source.name
        model = _folded(_modern(_read(source, name), name), name)
        _name_nodes(model)
        _unshare(model)
        graph = cls(model)
        graph._check_finite(name)
        return graph

    def copy(self) -> "Graph":
        """Return a copy that can be changed without changing this one."""
        return Graph(copy.deepcopy(self.proto))

    def to_bytes(self) -> bytes:
        """Return the model's bytes; the same model gives the same."""
        content: bytes = self.proto.SerializeToString(deterministic=True)
        return content

    def constant(self, name: str) -> NDArray[Any]:
        """Return an initializer as an array that must not be written to."""
        from onnx import numpy_helper

        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._constants[name])
        return self._arrays[name]

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is an initializer."""
        return name in self._constants

    def set_constant(self, name: str, value: NDArray[Any]) -> None:
        """Put an array in the place of an initializer."""
        from onnx import numpy_helper

        self._constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self._arrays[name] = value

    def consumers(self, tensor: str) -> "list[NodeProto]":
        """Return the nodes that read a tensor, in order."""
        return self._consumers.get(tensor, [])

    def producer(self, tensor: str) -> "NodeProto | None":
        """Return the node that writes a tensor; None for inputs and constants."""
        return self._producers.get(tensor)

    def rows(self, layer: Layer, stored: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a layer's weight, or another array in its stored layout, as (output channels, inputs per group)."""
        weight = self.constant(layer.weight) if stored is None else stored
        return np.ascontiguousarray(
            np.moveaxis(weight, layer.output_axis, 0).reshape(weight.shape[layer.output_axis], -1)
        )

    def from_rows(self, layer: Layer, rows: NDArray[Any]) -> NDArray[Any]:
        """Return such a matrix in the layer's stored layout."""
        others = [size for axis, size in enumerate(layer.shape) if axis != layer.output_axis % len(layer.shape)]
        channels = layer.shape[layer.output_axis]
        return np.ascontiguousarray(np.moveaxis(rows.reshape(channels, *others), 0, layer.output_axis))

    def input_rows(self, layer: Layer, tensor: FloatArray) -> list[FloatArray]:
        """Return what the rows of the weight are multiplied with: one (n, inputs per group) matrix per group.

        For a convolution these are the patches under the kernel, one per output pixel.
        """
        if layer.operator != "Conv":
            return [np.ascontiguousarray(tensor.reshape(-1, tensor.shape[-1]), np.float32)]
        node = self._producers[layer.output]
        attributes = _attributes(node)
        return _patches(tensor, layer, attributes)

    def _layer(self, node: "NodeProto") -> Layer | None:
        if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx"):
            return None
        if node.input[1] not in self._constants or node.input[0] in self._constants:
            return None
        attributes = _attributes(node)
        shape = tuple(self._constants[node.input[1]].dims)
        if node.op_type == "Gemm" and (attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0):
            return None
        if node.op_type == "MatMul" and len(shape) != 2:
            return None
        bias = node.input[2] if len(node.input) > 2 and node.input[2] in self._constants else None
        return Layer(
            name=node.name,
            operator=node.op_type,
            input=node.input[0],
            output=node.output[0],
            weight=node.input[1],
            bias=self._added(node) if node.op_type == "MatMul" else bias,
            groups=int(attributes.get("group", 1)),
            shape=shape,
            output_axis=0 if node.op_type == "Conv" or attributes.get("transB", 0) else len(shape) - 1,
        )

    def _added(self, node: "NodeProto") -> str | None:
        """Return the constant that an Add alone adds to a MatMul."""
        readers = self.consumers(node.output[0])
        if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in self.outputs:
            return None
        other = next((name for name in readers[0].input if name != node.output[0]), "")
        width = self._constants[node.input[1]].dims[-1]
        return other if other in self._constants and list(self._constants[other].dims) == [width] else None

    def _check_finite(self, name: str) -> None:
        for layer in self.layers:
            for constant in (layer.weight, layer.bias):
                if constant is not None and not np.isfinite(self.constant(constant)).all():
                    raise ModelError(f"weight {constant!r} of {name} must be finite. Got NaN or infinity.")


def _attributes(node: "NodeProto") -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _patches(tensor: FloatArray, layer: Layer, attributes: Mapping[str, Any]) -> list[FloatArray]:
    """im2col for any number of spatial axes."""
    kernel = layer.shape[2:]
    space = len(kernel)
    strides = attributes.get("strides") or [1] * space
    dilations = attributes.get("dilations") or [1] * space
    before, after = _pads(tensor.shape[2:], kernel, strides, dilations, attributes)
    padded = np.pad(tensor, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    span = [(size - 1) * gap + 1 for size, gap in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + space))
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=axes)
    steps = tuple(slice(None, None, step) for step in strides)
    gaps = tuple(slice(None, None, gap) for gap in dilations)
    windows = windows[(slice(None), slice(None), *steps, *gaps)]
    # (batch, channels, places..., kernel...) -> (batch, places..., channels, kernel...)
    windows = np.moveaxis(windows, 1, 1 + space)
    channels = tensor.shape[1] // layer.groups
    parts = np.split(windows, layer.groups, axis=1 + space)
    width = channels * int(np.prod(kernel))
    return [np.ascontiguousarray(part.reshape(-1, width), np.float32) for part in parts]


def _pads(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
    attributes: Mapping[str, Any],
) -> tuple[list[int], list[int]]:
    space, how = len(kernel), attributes.get("auto_pad", b"NOTSET")
    if how in (b"NOTSET", b"VALID"):
        pads = attributes.get("pads") or [0] * 2 * space
        return list(pads[:space]), list(pads[space:])
    missing = [
        max(0, (-(-size // step) - 1) * step + (width - 1) * gap + 1 - size)
        for size, width, step, gap in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [total // 2 for total in missing], [total - total // 2 for total in missing]
    return (less, more) if how == b"SAME_UPPER" else (more, less)


def _read(source: Path | bytes, name: str) -> "ModelProto":
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("quantization", package="onnx", extra="onnx") from None
    try:
        return onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    except Exception as error:  # A missing file, or a damaged protobuf: unrelated classes.
        raise ModelError(
            f"{source if isinstance(source, Path) else name} is not a readable ONNX file: {error}"
        ) from error


def _modern(model: "ModelProto", name: str) -> "ModelProto":
    from onnx import version_converter

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, 17)
    except Exception as error:  # onnx raises RuntimeError and its own ConvertError
        raise ModelError(
            f"opset of {name} must be at least {OLDEST_OPSET}. Got {opset}, not convertible: {error}"
        ) from error


def _folded(model: "ModelProto", name: str) -> "ModelProto":
    """Fold constants and batch norms, drop identities: ONNX Runtime's basic level, which writes plain ONNX."""
    import onnx

    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("quantization", package="onnxruntime", extra="onnx") from None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="halve-") as folder:
        target = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no public base class.
            raise ModelError(f"onnxruntime cannot load {name}: {' '.join(str(error).split())}") from error
        folded = onnx.load(target)
    for field in ("doc_string", "metadata_props", "producer_name", "producer_version"):
        folded.ClearField(field)
    return folded


def _name_nodes(model: "ModelProto") -> None:
    """Give every node a name of its own."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        base = node.name or f"{node.op_type}_{number}"
        node.name = base if base not in seen else f"{base}_{number}"
        seen.add(node.name)


def _unshare(model: "ModelProto") -> None:
    """Give every product a weight of its own: rounded for one input, it would be wrong for another."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name not in constants or node.op_type not in PRODUCTS or position == 0:
                continue
            if name in seen:
                own = f"{name}_of_{node.name}"
                tensor = model.graph.initializer.add()
                tensor.CopyFrom(constants[name])
                tensor.name = own
                node.input[position] = own
            seen.add(name)

"""What a graph computes from constants alone, computed once; and what follows a product, multiplied into its weight.

Batch normalization in evaluation mode is one factor and one summand per channel, so it is folded exactly:

    gamma (W x + b - mean) / sqrt(variance + epsilon) + beta  =  (f W) x + (b - mean) f + beta,
    f = gamma / sqrt(variance + epsilon)

Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import ModelError
from halve.techniques.compression.quantization.nodes import (
    IR_VERSION,
    attributes,
    inner_graphs,
    remove_unused,
    replace_field,
    tensor_names,
    unique,
    used_names,
)
from halve.techniques.compression.quantization.runtime import open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

NOT_FOLDED = frozenset({"Bernoulli", "ConstantOfShape", "Expand", "EyeLike", "Multinomial", "OneHot", "Range", "Tile"})
"""Random, or larger than what they are made of: they would fill the file."""

Constants = dict[str, NDArray[Any]]


def fold_constants(model: "ModelProto") -> None:
    """Replace nodes that depend on constants alone by their values, as onnxruntime computes them."""
    from onnx import numpy_helper

    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    folded = []
    for node in graph.node:
        names = [name for name in node.input if name]
        random = node.op_type.startswith("Random") or node.op_type in NOT_FOLDED
        inner = any(True for _ in inner_graphs(node))
        fixed = constant.issuperset(names) and not outputs.intersection(node.output)
        if fixed and node.domain in ("", "ai.onnx") and not random and not inner:
            folded.append(node)
            constant.update(node.output)
    if not folded:
        return
    gone = {node.name for node in folded}
    rest = [node for node in graph.node if node.name not in gone]
    made = {name for node in folded for name in node.output}
    wanted = sorted(made.intersection(name for node in rest for name in used_names(node)))
    values = _evaluated(model, folded, wanted)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    replace_field(graph.node, rest)
    remove_unused(graph)


def _evaluated(model: "ModelProto", nodes: "list[NodeProto]", wanted: list[str]) -> Constants:
    from onnx import helper

    if not wanted:
        return {}
    outputs = [helper.make_empty_tensor_value_info(name) for name in wanted]
    graph = helper.make_graph(nodes, "constants", [], outputs, list(model.graph.initializer))
    remove_unused(graph)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=IR_VERSION)
    session = open_session(part.SerializeToString())
    try:
        values = session.run(wanted, {})
    except Exception as error:  # onnxruntime's exceptions have no public base class.
        raise ModelError(f"onnxruntime cannot compute the model's constants: {' '.join(str(error).split())}") from error
    return {name: np.asarray(value) for name, value in zip(wanted, values, strict=True)}


def remove_identities(graph: "GraphProto") -> None:
    """Take out Identity, and Dropout, which does nothing in service."""
    outputs = {value.name for value in graph.output}
    captured = {name for node in graph.node for name in set(used_names(node)) - set(node.input)}
    readable = {name for node in graph.node for name in node.input}
    source: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = source.get(name, name)
        is_idle = node.op_type == "Identity" or (
            node.op_type == "Dropout" and len(node.input) < 3 and not readable.intersection(node.output[1:])
        )
        if is_idle and not {node.output[0], *node.output[1:]} & (outputs | captured):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_field(graph.node, kept)


class _Editor:
    """Constants by name, and who reads what, while a graph is being changed."""

    def __init__(self, graph: "GraphProto") -> None:
        from onnx import numpy_helper

        self.graph = graph
        self._helper = numpy_helper
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._taken = tensor_names(graph)
        self.outputs = {value.name for value in graph.output}

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant, None for a tensor that is none."""
        tensor = self._tensors.get(name)
        return None if tensor is None else np.asarray(self._helper.to_array(tensor))

    def add(self, value: NDArray[Any], *, like: str) -> str:
        """Add a constant; return its name."""
        name = unique(like, self._taken)
        tensor = self._helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(tensor)
        self._tensors[name] = tensor
        return name

    def only_reader(self, tensor: str) -> "NodeProto | None":
        """Return the node that alone reads a tensor, if it is no output of the model."""
        if tensor in self.outputs:
            return None
        readers = [node for node in self.graph.node if tensor in used_names(node)]
        return readers[0] if len(readers) == 1 and list(readers[0].input).count(tensor) == 1 else None


def normalize_gemm(graph: "GraphProto") -> None:
    """Multiply alpha into constant weights and beta into constant biases; make biases (output channels,)."""
    editor = _Editor(graph)
    for node in graph.node:
        if node.op_type != "Gemm":
            continue
        settings = attributes(node)
        weight = editor.value(node.input[1])
        bias = editor.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        has_bias = len(node.input) > 2 and bool(node.input[2])
        if weight is None or (has_bias and bias is None):
            continue
        alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
        channels = weight.shape[0 if settings.get("transB") else 1]
        if bias is not None and (bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1)):
            continue
        if alpha != 1:
            node.input[1] = editor.add((weight * alpha).astype(weight.dtype), like=f"{node.input[1]}.scaled")
        if bias is not None and (beta != 1 or bias.shape != (channels,)):
            wide = np.broadcast_to(bias.reshape(-1) * np.asarray(beta, bias.dtype), (channels,))
            node.input[2] = editor.add(wide.astype(bias.dtype), like=f"{node.input[2]}.scaled")
        kept = [attribute for attribute in node.attribute if attribute.name not in ("alpha", "beta")]
        replace_field(node.attribute, kept)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Factor:
    """y -> scale y + shift, float64 (channels,)."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def fold_channel_factors(graph: "GraphProto") -> None:
    """Fold batch normalization, and Mul and Add with constants per channel, into the Conv or Gemm before them."""
    editor = _Editor(graph)
    gone: set[str] = set()
    for node in graph.node:
        while node.name not in gone and (reader := editor.only_reader(node.output[0])) is not None:
            weight = _weight(editor, node)
            factor = None if weight is None else _factor(editor, reader, source=node, weight=weight)
            if weight is None or factor is None or not _fold(editor, node, weight, factor):
                break
            gone.add(reader.name)
            node.output[0] = reader.output[0]
            # Emptied, so that nothing takes it for a reader or a writer any more.
            reader.ClearField("input")
            reader.ClearField("output")
    replace_field(graph.node, [node for node in graph.node if node.name not in gone])


def _weight(editor: _Editor, node: "NodeProto") -> NDArray[Any] | None:
    """Return the float32 weight of a Conv or Gemm with its output channels first, else None."""
    if node.op_type not in ("Conv", "Gemm") or attributes(node).get("transA"):
        return None
    weight = editor.value(node.input[1])
    if weight is None or weight.dtype != np.float32:
        return None
    return weight if _is_channels_first(node) else weight.T


def _is_channels_first(node: "NodeProto") -> bool:
    return node.op_type == "Conv" or bool(attributes(node).get("transB"))


def _factor(editor: _Editor, node: "NodeProto", *, source: "NodeProto", weight: NDArray[Any]) -> _Factor | None:
    """Return what a node does to each channel of a product's output, if it does nothing else."""
    if node.op_type == "BatchNormalization" and node.input[0] == source.output[0]:
        return _of_batch_norm(editor, node)
    if node.op_type not in ("Add", "Mul"):
        return None
    constants = [editor.value(name) for name in node.input if name != source.output[0]]
    # Along the channel axis: (C, 1, 1) behind a 2-D convolution, (C,) behind a Gemm.
    shape = (len(weight), *(1,) * (weight.ndim - 2))
    value = constants[0] if constants else None
    if value is None or value.dtype != np.float32 or value.shape not in {shape, (1, *shape)}:
        return None
    flat = value.reshape(-1).astype(np.float64)
    if node.op_type == "Mul":
        return _Factor(scale=flat, shift=np.zeros_like(flat))
    return _Factor(scale=np.ones_like(flat), shift=flat)


def _of_batch_norm(editor: _Editor, node: "NodeProto") -> _Factor | None:
    options = attributes(node)
    values = [editor.value(name) for name in node.input[1:5]]
    if options.get("training_mode") or any(node.output[1:]) or any(value is None for value in values):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(variance + options.get("epsilon", 1e-5))
    return _Factor(scale=scale, shift=beta - mean * scale)


def _fold(editor: _Editor, node: "NodeProto", weight: NDArray[Any], factor: _Factor) -> bool:
    """Multiply into weight and bias; False, and nothing changed, if the bias is not one constant per channel."""
    name = node.input[2] if len(node.input) > 2 else ""
    bias = editor.value(name) if name else np.zeros(len(weight), np.float32)
    if bias is None or bias.shape != factor.scale.shape:
        return False
    scaled = (weight * factor.scale.reshape(-1, *(1,) * (weight.ndim - 1))).astype(np.float32)
    moved = (bias * factor.scale + factor.shift).astype(np.float32)
    weight_name = editor.add(scaled if _is_channels_first(node) else scaled.T, like=f"{node.input[1]}.folded")
    bias_name = editor.add(moved, like=f"{name or node.input[1] + '.bias'}.folded")
    replace_field(node.input, [node.input[0], weight_name, bias_name])
    return True

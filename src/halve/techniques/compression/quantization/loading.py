"""Any ONNX file into one normal form, so that the methods meet each thing in one shape only.

In this order: functions inlined; operator set at least 13, where per-channel grids begin; nothing left that tells
when or where the file was made; every node named; constants folded; Identity and Dropout gone; factors of Gemm and
batch normalization multiplied into the weights; one weight and bias per layer; what nothing reads removed.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from halve.errors import MissingExtraError, ModelError
from halve.techniques.compression.quantization import folding
from halve.techniques.compression.quantization.nodes import (
    IR_VERSION,
    inner_graphs,
    opset,
    remove_unused,
    replace_field,
    tensor_names,
    unique,
    used_names,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OLDEST_OPSET = 13
"""QuantizeLinear has scales per channel from here on."""

QUANTIZED = frozenset(
    {"ConvInteger", "DequantizeLinear", "MatMulInteger", "MatMulNBits", "QLinearConv", "QLinearMatMul"}
)
"""A model that holds one of these is no fp32 model any more."""

PRODUCTS = ("Conv", "Gemm", "MatMul")


def read_model(source: Path | bytes) -> "ModelProto":
    """Return the model in normal form; see `Graph.load`."""
    name = "the model" if isinstance(source, bytes) else source.name
    model = _modern(_parsed(source), name)
    _strip(model)
    quantized = sorted({node.op_type for node in model.graph.node} & QUANTIZED)
    if quantized:
        raise ModelError(f"{name} must be fp32 to be quantized. It holds {', '.join(quantized)}.")
    _name_nodes(model.graph)
    folding.fold_constants(model)
    folding.remove_identities(model.graph)
    folding.normalize_gemm(model.graph)
    folding.fold_channel_factors(model.graph)
    _separate_weights(model.graph)
    remove_unused(model.graph)
    _check_weights(model.graph, name)
    return model


def _parsed(source: Path | bytes) -> "ModelProto":
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("quantization", package="onnx", extra="onnx") from None
    try:
        model = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    except Exception as error:  # A missing file, damaged protobuf, or missing external data: unrelated classes.
        name = "the model" if isinstance(source, bytes) else str(source)
        raise ModelError(f"{name} is not a readable ONNX file: {error}") from error
    if not model.graph.node:
        name = "the model" if isinstance(source, bytes) else str(source)
        raise ModelError(f"{name} is not a readable ONNX file: its graph is empty.")
    return model


def _modern(model: "ModelProto", name: str) -> "ModelProto":
    from onnx import inliner, version_converter

    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        if opset(model) < OLDEST_OPSET:
            model = version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # The converter raises RuntimeError and others.
        version = opset(model)
        raise ModelError(f"{name} cannot be converted from opset {version} to {OLDEST_OPSET}: {error}") from error
    return model


def _strip(model: "ModelProto") -> None:
    """Take out what says when, where and by whom the file was made, and default values of inputs."""
    model.ir_version = IR_VERSION
    for field in ("doc_string", "metadata_props", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    _strip_graph(model.graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    replace_field(model.graph.input, inputs)


def _strip_graph(graph: "GraphProto") -> None:
    graph.name = "halve"
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.ClearField("quantization_annotation")
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        for inner in inner_graphs(node):
            _strip_graph(inner)


def _name_nodes(graph: "GraphProto") -> None:
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = unique(node.name or f"{node.op_type}_{index}", taken)


def _separate_weights(graph: "GraphProto") -> None:
    """Give every product a weight and a bias that nothing else reads, and the Add after a MatMul its constant."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in used_names(node))
    uses.update(value.name for value in graph.output)
    taken = tensor_names(graph)
    for node in graph.node:
        if node.op_type not in (*PRODUCTS, "Add"):
            continue
        for position, name in enumerate(node.input):
            if uses[name] < 2 or name not in constants:
                continue
            uses[name] -= 1
            copy = graph.initializer.add()
            copy.CopyFrom(constants[name])
            copy.name = unique(f"{name}.{node.name}", taken)
            node.input[position] = copy.name


def _check_weights(graph: "GraphProto", name: str) -> None:
    """Raise if a number of a product is NaN or infinite. Other constants may be: an attention mask adds -inf."""
    from onnx import numpy_helper

    weights = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    for tensor in graph.initializer:
        if tensor.name not in weights:
            continue
        value = numpy_helper.to_array(tensor)
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise ModelError(f"weight {tensor.name!r} of {name} must be finite. Got NaN or infinity.")

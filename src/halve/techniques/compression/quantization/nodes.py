"""Small questions to an ONNX graph: what a node reads, which names are taken, what nothing needs."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

IR_VERSION = 10
"""Of the file format: the one that came with 4-bit integers; onnxruntime reads it since 1.18."""


def attributes(node: "NodeProto") -> dict[str, Any]:
    """Return the attributes of a node by name."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def used_names(node: "NodeProto") -> Iterator[str]:
    """Yield the tensors that a node reads, those that its inner graphs take from outside included."""
    yield from (name for name in node.input if name)
    for graph in inner_graphs(node):
        for inner in graph.node:
            yield from used_names(inner)
        yield from (value.name for value in graph.output)


def inner_graphs(node: "NodeProto") -> "Iterator[GraphProto]":
    """Yield the graphs that are attributes of a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def opset(model: "ModelProto") -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def replace_field(field: Any, values: Iterable[Any]) -> None:
    """Replace the content of a repeated protobuf field."""
    kept = list(values)
    del field[:]
    field.extend(kept)


def unique(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def tensor_names(graph: "GraphProto") -> set[str]:
    """Return all names of tensors in a graph."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names |= {*used_names(node), *node.output}
    return names


def remove_unused(graph: "GraphProto") -> None:
    """Take out nodes and constants that no output depends on."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(used_names(node))
            kept.append(node)
    replace_field(graph.node, reversed(kept))
    replace_field(graph.initializer, (tensor for tensor in graph.initializer if tensor.name in needed))

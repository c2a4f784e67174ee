"""Real inputs through the fp32 model: what values its inner tensors take, batch by batch.

Nothing is kept but what the caller keeps, so memory is bounded by one batch. A model whose batch axis is fixed gets
its inputs in pieces of that size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.observers import Observer
from halve.techniques.compression.quantization.runtime import open_session

Batches = Sequence[Mapping[str, NDArray[Any]]]
"""Batches of named input tensors, batch axis first."""

ELEMENT_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


def fitted(model: bytes, batches: Batches) -> Batches:
    """Return the batches as the model can take them.

    Where a model's batch axis is fixed at n rows, every batch is cut into pieces of n. The last piece overlaps the
    one before it; a batch shorter than n is repeated.

    Args:
        model: An ONNX file.
        batches: To be checked: at least one, all inputs by their names, as many rows in each, shapes and types that
            the model takes, all numbers finite.

    Raises:
        InvalidParameterError: If a batch breaks one of these rules; names batch, input, rule and value.
        ModelError: If onnxruntime cannot load the model.
    """
    if not batches:
        raise InvalidParameterError("calibration", rule="at least one batch", value=0)
    nodes = open_session(model).get_inputs()
    for index, batch in enumerate(batches):
        _check_names(batch, [node.name for node in nodes], owner=f"calibration[{index}]")
        for node in nodes:
            _check_array(batch[node.name], node, owner=f"calibration[{index}][{node.name!r}]")
        rows = {name: len(array) for name, array in batch.items()}
        if len(set(rows.values())) > 1:
            raise InvalidParameterError(f"calibration[{index}]", rule="of as many rows in every input", value=rows)
    sizes = {node.shape[0] for node in nodes if node.shape and isinstance(node.shape[0], int)}
    if len(sizes) != 1 or any(not node.shape or node.shape[0] not in sizes for node in nodes):
        return batches
    size = sizes.pop()
    return [piece for batch in batches for piece in _pieces(batch, size)]


def _check_names(batch: Mapping[str, NDArray[Any]], names: Sequence[str], *, owner: str) -> None:
    if set(batch) != set(names):
        raise InvalidParameterError(owner, rule=f"tensors named {sorted(names)}", value=sorted(batch))


def _check_array(array: NDArray[Any], node: Any, *, owner: str) -> None:
    wanted = ELEMENT_TYPES.get(node.type)
    if wanted is not None and array.dtype != wanted:
        raise InvalidParameterError(owner, rule=f"of type {wanted}", value=str(array.dtype))
    if node.shape and (
        array.ndim != len(node.shape)
        or any(isinstance(want, int) and got != want for want, got in zip(node.shape[1:], array.shape[1:], strict=True))
    ):
        raise InvalidParameterError(owner, rule=f"of shape {tuple(node.shape)}", value=array.shape)
    if len(array) == 0:
        raise InvalidParameterError(owner, rule="at least one row", value=0)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise InvalidParameterError(owner, rule="finite", value="NaN or infinity")


def _pieces(batch: Mapping[str, NDArray[Any]], size: int) -> Iterator[dict[str, NDArray[Any]]]:
    rows = len(next(iter(batch.values())))
    starts = [*range(0, rows - size, size), max(rows - size, 0)]
    for start in starts:
        at = (start + np.arange(size)) % rows
        yield {name: np.ascontiguousarray(array[at]) for name, array in batch.items()}


def record(graph: Graph, batches: Batches, tensors: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the values of tensors, one dictionary per batch.

    Args:
        graph: The fp32 model.
        batches: Inputs; checked as in `fitted`.
        tensors: Names of tensors anywhere in the graph, inputs included.

    Raises:
        InvalidParameterError: If a batch cannot be used, or there is no tensor of a name.
        ModelError: If onnxruntime cannot run the model.
    """
    inputs = [name for name in tensors if name in graph.inputs]
    inner = [name for name in dict.fromkeys(tensors) if name not in graph.inputs]
    for name in inner:
        if graph.producer(name) is None:
            raise InvalidParameterError("tensors", rule="names of tensors that the model computes", value=name)
    pieces = fitted(graph.to_bytes(), batches)
    session = open_session(_with_outputs(graph, inner)) if inner else None
    for piece in pieces:
        values = {name: piece[name] for name in inputs}
        if session is not None:
            feed = {node.name: piece[node.name] for node in session.get_inputs()}
            try:
                values.update(zip(inner, session.run(inner, feed), strict=True))
            except Exception as error:  # onnxruntime's exceptions have no public base class.
                raise ModelError(f"onnxruntime cannot run the model: {' '.join(str(error).split())}") from error
        yield values


def _with_outputs(graph: Graph, tensors: Sequence[str]) -> bytes:
    """Return the model with these tensors as its outputs; onnxruntime leaves out what they do not need."""
    from onnx import helper

    proto = graph.copy().proto
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def observe(
    graph: Graph, batches: Batches, tensors: Sequence[str], observer: Callable[[], Observer]
) -> dict[str, tuple[float, float]]:
    """Return the range of each tensor, by name.

    Args:
        graph: The fp32 model.
        batches: Inputs; checked as in `fitted`.
        tensors: Names of float tensors anywhere in the graph.
        observer: Makes what looks at one tensor.

    Raises:
        InvalidParameterError: If a batch cannot be used, or there is no tensor of a name.
        ModelError: If onnxruntime cannot run the model, or a tensor holds NaN or infinity on some input.
    """
    observers = {name: observer() for name in tensors}
    if not observers:
        return {}
    for index, values in enumerate(record(graph, batches, list(observers))):
        for name, value in values.items():
            if not np.issubdtype(value.dtype, np.floating):
                raise InvalidParameterError(f"tensor {name!r}", rule="of a float type", value=str(value.dtype))
            if not np.isfinite(value).all():
                raise ModelError(
                    f"tensor {name!r} must be finite on the calibration inputs. Got NaN or infinity in batch {index}."
                )
            if value.size:
                observers[name].update(value.astype(np.float32, copy=False))
    return {name: seen.range() for name, seen in observers.items()}

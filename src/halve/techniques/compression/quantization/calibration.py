"""What flows through a model: inner tensors on real inputs, batch by batch, as the deployed runtime computes them."""

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


def record(graph: Graph, batches: Batches, tensors: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the fp32 values of tensors, inputs among them, for one batch after another; memory holds one batch.

    A model whose batch axis is fixed is fed so many rows at a time.

    Raises:
        InvalidParameterError: If the batches break a rule of `check_batches`.
        ModelError: If the model cannot be run on them.
    """
    inner = [name for name in tensors if name not in graph.inputs]
    session = open_session(_with_outputs(graph, inner))
    check_batches(session, batches)
    fixed = _fixed_rows(session)
    for batch in batches:
        feed = {name: batch[name] for name in graph.inputs}
        pieces = [dict(zip(inner, _run(session, inner, piece), strict=True)) for piece in _pieces(feed, fixed)]
        values = {name: np.concatenate([piece[name] for piece in pieces]) for name in inner}
        yield {name: feed[name] if name in feed else values[name] for name in tensors}


def observe(
    graph: Graph, batches: Batches, tensors: Sequence[str], observer: Callable[[], Observer]
) -> dict[str, tuple[float, float]]:
    """Return the range of each tensor as a fresh observer of it chose it.

    Raises:
        InvalidParameterError: If the batches break a rule of `check_batches`, or a tensor is not finite.
        ModelError: If the model cannot be run on them.
    """
    observers = {name: observer() for name in tensors}
    for values in record(graph, batches, list(observers)):
        for name, watching in observers.items():
            if not np.isfinite(values[name]).all():
                raise ModelError(f"tensor {name!r} must be finite on the calibration inputs. Got NaN or infinity.")
            watching.update(values[name])
    return {name: watching.range() for name, watching in observers.items()}


def check_batches(session: Any, batches: Batches) -> None:
    """Raise InvalidParameterError if there is no batch, or one is empty, not finite, or named or shaped otherwise."""
    if not batches:
        raise InvalidParameterError("calibration", rule="at least one batch", value=0)
    shapes = {node.name: node.shape for node in session.get_inputs()}
    for index, batch in enumerate(batches):
        if set(batch) != set(shapes):
            rule = f"tensors named {sorted(shapes)}"
            raise InvalidParameterError(f"calibration[{index}]", rule=rule, value=sorted(batch))
        for name, array in batch.items():
            field = f"calibration[{index}][{name!r}]"
            if len(array) == 0:
                raise InvalidParameterError(field, rule="at least one row", value=0)
            if not _fits(array.shape[1:], shapes[name][1:]):
                rule = f"of shape {tuple(shapes[name])}, the first axis apart"
                raise InvalidParameterError(field, rule=rule, value=array.shape)
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise InvalidParameterError(field, rule="finite", value="NaN or infinity")


def _fits(shape: tuple[int, ...], wanted: Sequence[int | str | None]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(size, int) or size == given for given, size in zip(shape, wanted, strict=True)
    )


def _with_outputs(graph: Graph, tensors: Sequence[str]) -> bytes:
    from onnx import helper

    model = graph.copy().proto
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors if name not in present)
    content: bytes = model.SerializeToString()
    return content


def _fixed_rows(session: Any) -> int | None:
    sizes = [node.shape[0] for node in session.get_inputs() if node.shape]
    return next((size for size in sizes if isinstance(size, int)), None)


def _pieces(feed: Mapping[str, NDArray[Any]], rows: int | None) -> Iterator[dict[str, NDArray[Any]]]:
    total = len(next(iter(feed.values())))
    size = total if rows is None else rows
    if total % size:
        raise InvalidParameterError("calibration", rule=f"a multiple of {size} rows, as the model wants", value=total)
    for start in range(0, total, size):
        yield {name: array[start : start + size] for name, array in feed.items()}


def _run(session: Any, tensors: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    if not tensors:
        return []
    try:
        values: list[NDArray[Any]] = session.run(list(tensors), feed)
    except Exception as error:  # onnxruntime's exceptions have no public base class.
        raise ModelError(f"onnxruntime cannot run the model: {' '.join(str(error).split())}") from error
    return values

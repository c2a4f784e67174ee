"""What every engine does around its runtime: logits to predictions, and a culprit for every failure."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from halve.core import Payload, Prediction
from halve.errors import AnswerError

LogitsOf = Callable[[Sequence[Payload]], NDArray[np.float32]]
"""Runs the model: payloads in, logits of shape (batch, classes) out. May raise anything."""


def answer_batch(name: str, payloads: Sequence[Payload], *, logits_of: LogitsOf) -> Prediction:
    """Return one answer per payload; a failing batch is run again one by one, to name the input at fault.

    Payloads that only fail together (images of several sizes, say) are answered one by one.

    Raises:
        AnswerError: If the model raises, or returns NaN, infinity or another shape, on an input.
    """
    if len(payloads) == 0:
        return Prediction(answers=np.empty(0, np.int64), probabilities=np.empty((0, 0), np.float32))
    try:
        logits = _checked(logits_of(payloads), batch=len(payloads))
    except Exception:  # The runtime's errors share no base class; what cannot be answered singly is raised below.
        logits = _one_by_one(name, payloads, logits_of=logits_of)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise AnswerError(name, index=index, cause="its logits hold NaN or infinity")
    return Prediction(answers=np.argmax(logits, axis=1).astype(np.int64), probabilities=softmax(logits))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return exp(z_i) / sum_j exp(z_j) along the last axis, with the row maximum taken off first."""
    wide = logits.astype(np.float64)  # The difference of two float32 numbers may not be one.
    exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float32)


def _one_by_one(name: str, payloads: Sequence[Payload], *, logits_of: LogitsOf) -> NDArray[np.float32]:
    rows: list[NDArray[np.float32]] = []
    for index, payload in enumerate(payloads):
        try:
            row = _checked(logits_of([payload]), batch=1)
        except Exception as error:
            raise AnswerError(name, index=index, cause=_brief(error)) from error
        if rows and row.shape != rows[0].shape:
            cause = f"it returned {row.shape[1]} classes, and {rows[0].shape[1]} on input 0"
            raise AnswerError(name, index=index, cause=cause)
        rows.append(row)
    return np.concatenate(rows)


def _checked(logits: NDArray[np.float32], *, batch: int) -> NDArray[np.float32]:
    if logits.ndim != 2 or logits.shape[0] != batch or logits.shape[1] == 0:
        raise ValueError(f"logits must have shape ({batch}, classes). Got {logits.shape}")
    return logits


def _brief(error: Exception, *, limit: int = 300) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return f"{type(error).__name__}: {text}"

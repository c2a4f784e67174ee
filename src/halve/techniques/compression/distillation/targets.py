"""A teacher's answers as a student needs them: the likely classes one by one, all others as one bucket.

The bucket's mass depends on the temperature: at T it is sum over the tail of p_j^(1/T), over the same sum of all
classes. So the logarithm of that sum, S(T), is kept for a grid of temperatures. In b = 1 / T it is

    S(b) = log sum_tail exp(b log p_j)

smooth, convex, and at b = 0 the logarithm of the number of classes in the tail, which is known. Between the points of
the grid it is interpolated in b; on them it is exact up to the rounding of what is stored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation.losses import check_temperature

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Where the tail is kept; an infinite temperature is known without."""

LEAST_STORED = -60_000.0
"""Stands for the logarithm of 0 in float16."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """A teacher's answers to some rows.

    Args:
        classes: Number of classes, >= 2.
        indices: Listed classes, unsigned (rows, k), likeliest first; None where column j is class j.
        log_probabilities: Of the listed classes at T = 1, float16 or float32 (rows, k).
        tail: S at each of TEMPERATURES, float16 or float32 (rows, 5); None where every class is listed.
    """

    classes: int
    indices: NDArray[Any] | None
    log_probabilities: NDArray[Any]
    tail: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.log_probabilities)

    @classmethod
    def dense(cls, log_probabilities: NDArray[Any]) -> "Targets":
        """Return targets that list every class, from log-probabilities (rows, classes) at T = 1; -inf is allowed.

        Raises:
            InvalidParameterError: If it is no array of two axes and at least two classes, or holds NaN or +inf.
        """
        if log_probabilities.ndim != 2 or log_probabilities.shape[1] < 2:
            raise InvalidParameterError("targets", rule="(rows, at least 2 classes)", value=log_probabilities.shape)
        kept = np.maximum(log_probabilities, LEAST_STORED).astype(np.float32)
        if not np.isfinite(kept).all():
            raise InvalidParameterError("targets", rule="log-probabilities without NaN or +inf", value="NaN or +inf")
        return cls(classes=kept.shape[1], indices=None, log_probabilities=kept, tail=None)

    def take(self, rows: NDArray[Any] | slice) -> "Targets":
        """Return the targets of some rows, in that order."""
        return Targets(
            classes=self.classes,
            indices=None if self.indices is None else self.indices[rows],
            log_probabilities=self.log_probabilities[rows],
            tail=None if self.tail is None else self.tail[rows],
        )

    def log_masses(self, temperature: float) -> FloatArray:
        """Return the logarithms of the softened masses, float32 (rows, k), or (rows, k + 1) with the tail last.

        Args:
            temperature: T > 0.
        """
        check_temperature(temperature)
        raised = self.log_probabilities.astype(np.float32) / np.float32(temperature)
        if self.tail is not None:
            raised = np.concatenate([raised, self.tail_log_sum(temperature)[:, None]], axis=1)
        highest = raised.max(axis=1, keepdims=True)
        total = np.log(np.exp(raised - highest).sum(axis=1, keepdims=True, dtype=np.float64)) + highest
        return np.asarray(raised - total, np.float32)

    def tail_log_sum(self, temperature: float) -> FloatArray:
        """Return S(T) of each row, float32 (rows,); below T = 1 the slope of the first interval goes on."""
        if self.tail is None:
            raise InvalidParameterError("targets", rule="targets with a tail", value="every class is listed")
        tail_classes = self.classes - self.log_probabilities.shape[1]
        known = np.full((len(self), 1), np.log(tail_classes), np.float32)
        values = np.concatenate([known, self.tail[:, ::-1].astype(np.float32)], axis=1)
        inverse = np.array([0.0, *(1 / t for t in reversed(TEMPERATURES))])
        right = int(np.clip(np.searchsorted(inverse, 1 / temperature), 1, len(inverse) - 1))
        share = (1 / temperature - inverse[right - 1]) / (inverse[right] - inverse[right - 1])
        return np.asarray(values[:, right - 1] * (1 - share) + values[:, right] * share, np.float32)

    def dense_log_probabilities(self) -> FloatArray:
        """Return log-probabilities at T = 1 of every class, float32 (rows, classes).

        The tail's mass is spread evenly over its classes: what is known of them is their sum.
        """
        if self.indices is None:
            return self.log_probabilities.astype(np.float32)
        full = np.empty((len(self), self.classes), np.float32)
        if self.tail is not None:
            spread = self.tail[:, 0].astype(np.float32) - np.log(self.classes - self.log_probabilities.shape[1])
            full[:] = spread[:, None]
        np.put_along_axis(full, self.indices.astype(np.int64), self.log_probabilities.astype(np.float32), axis=1)
        return full


def compressed(log_probabilities: NDArray[Any], *, k: int) -> Targets:
    """Return the k likeliest classes of each row in the smallest types, and the others as one bucket.

    Args:
        log_probabilities: (rows, classes) at T = 1; -inf is allowed.
        k: >= 1; from the number of classes on, every class is listed, in order.

    Raises:
        InvalidParameterError: If the array breaks the rules of `Targets.dense` or k is below 1.
    """
    full = Targets.dense(log_probabilities).log_probabilities
    if k < 1:
        raise InvalidParameterError("k", rule="at least 1", value=k)
    classes = full.shape[1]
    if k >= classes:
        return Targets(classes=classes, indices=None, log_probabilities=full.astype(np.float16), tail=None)
    chosen = np.argpartition(-full, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(full, chosen, axis=1)
    order = np.lexsort((chosen, -values), axis=1)
    chosen, values = np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)
    others = full.astype(np.float64)
    np.put_along_axis(others, chosen, -np.inf, axis=1)
    tail = np.stack([_log_sum(others / temperature) for temperature in TEMPERATURES], axis=1)
    return Targets(
        classes=classes,
        indices=chosen.astype(index_type(classes)),
        log_probabilities=values.astype(np.float16),
        tail=np.maximum(tail, LEAST_STORED).astype(np.float16),
    )


def index_type(classes: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds every class index."""
    return np.min_scalar_type(classes - 1)


def row_bytes(classes: int, k: int) -> int:
    """Return how many bytes `compressed` needs for a row."""
    if k >= classes:
        return 2 * classes
    return k * (index_type(classes).itemsize + 2) + 2 * len(TEMPERATURES)


def largest_k(classes: int, *, row_budget: float) -> int:
    """Return how many classes can be listed in so many bytes per row: all of them, or as many as fit, at least 1."""
    if row_bytes(classes, classes) <= row_budget:
        return classes
    fits = int((row_budget - 2 * len(TEMPERATURES)) // (index_type(classes).itemsize + 2))
    return max(1, min(fits, classes - 1))


def _log_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = values.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(values - highest).sum(axis=1)) + highest[:, 0])

"""What teachers give, as log-probabilities float32 (rows, classes) at T = 1: from logits, probabilities or samples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

FloatArray = NDArray[np.float32]
Numbers = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
MASS_TOLERANCE = 1e-2
SMALLEST = float(np.finfo(np.float32).tiny)
"""The probability that 0 is taken for: smaller than any that a float32 softmax tells from 0."""


def log_probabilities_of_logits(logits: Numbers) -> FloatArray:
    """Return log softmax(z), computed in float64.

    Args:
        logits: (rows, classes), finite.

    Raises:
        InvalidParameterError: If the shape is another or a number is not finite.
    """
    values = _matrix("logits", logits)
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)


def log_probabilities_of(probabilities: Numbers) -> FloatArray:
    """Return log p, rows brought to a sum of exactly 1; zeros are allowed and become the smallest float32.

    Args:
        probabilities: (rows, classes), >= 0, each row summing to 1 within 1 %.

    Raises:
        InvalidParameterError: If a rule is broken.
    """
    values = _matrix("probabilities", probabilities)
    if values.min() < 0:
        raise InvalidParameterError("probabilities", rule="at least 0", value=float(values.min()))
    mass = values.sum(axis=1, keepdims=True)
    if np.abs(mass - 1).max() > MASS_TOLERANCE:
        worst = float(mass.ravel()[np.abs(mass - 1).argmax()])
        raise InvalidParameterError("probabilities", rule="rows that sum to 1", value=worst)
    return np.asarray(np.log(np.maximum(values / mass, SMALLEST)), np.float32)


def log_probabilities_of_counts(
    counts: NDArray[np.integer] | NDArray[np.floating], *, smoothing: float = 1.0
) -> FloatArray:
    """Return the logarithm of (n_i + a / N) / (n + a): labels that a teacher gave when it was asked n times.

    a is worth so many more answers, spread evenly over the N classes (Laplace smoothing; a = N adds one to every
    class). A row without any answer is even.

    Args:
        counts: How often each class was answered, (rows, classes), >= 0.
        smoothing: a > 0.

    Raises:
        InvalidParameterError: If a rule is broken.
    """
    values = _matrix("counts", counts)
    if not 0 < smoothing < np.inf:
        raise InvalidParameterError("smoothing", rule="positive", value=smoothing)
    if values.min() < 0:
        raise InvalidParameterError("counts", rule="at least 0", value=float(values.min()))
    total = values.sum(axis=1, keepdims=True) + smoothing
    return np.asarray(np.log((values + smoothing / values.shape[1]) / total), np.float32)


def _matrix(name: str, array: Numbers) -> NDArray[np.float64]:
    values = np.asarray(array, np.float64)
    if values.ndim != 2 or not len(values) or values.shape[1] < 2:
        raise InvalidParameterError(name, rule="(rows, at least 2 classes)", value=values.shape)
    if not np.isfinite(values).all():
        raise InvalidParameterError(name, rule="finite", value="NaN or infinity")
    return values

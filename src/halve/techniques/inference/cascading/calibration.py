"""Scores that order answers well become probabilities that mean what they say: temperature and isotonic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from halve.errors import InvalidParameterError

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
"""Limits of the fit. Logits that are never wrong would want 0, ones that say nothing would want infinity."""


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the T that minimises the mean of -log softmax(z / T)[y].

    With b = 1 / T the loss is convex and its slope is mean(E_p[z] - z_y), p = softmax(b z), which rises with b: its
    root is found by bracketing. Dividing by T changes no answer and no order within a row, only how sure it looks.

    Source: Guo, Pleiss, Sun & Weinberger 2017, ICML, arXiv:1706.04599.

    Args:
        logits: (n, k), n >= 1, k >= 2, finite.
        labels: (n,), the right class of each row, 0..k-1.

    Returns:
        T, in [0.01, 100].

    Raises:
        InvalidParameterError: If a shape is wrong, a logit is not finite or a label is outside 0..k-1.
    """
    rows, right = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _check_logits(rows, right)
    given = rows[np.arange(len(rows)), right]

    def slope(inverse: float) -> float:
        expected = np.sum(softmax(inverse * rows, axis=1) * rows, axis=1)
        return float(np.mean(expected - given))

    least, most = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    if slope(least) >= 0:
        return HIGHEST_TEMPERATURE
    if slope(most) <= 0:
        return LOWEST_TEMPERATURE
    return float(1 / brentq(slope, least, most, xtol=1e-12))


def negative_log_likelihood(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, temperature: float = 1.0
) -> float:
    """Return the mean of -log softmax(z / T)[y]; arguments as in `fit_temperature`."""
    rows, right = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _check_logits(rows, right)
    return float(-np.mean(log_softmax(rows / temperature, axis=1)[np.arange(len(rows)), right]))


@dataclass(frozen=True, kw_only=True)
class IsotonicCurve:
    """A rising curve from a score to a probability: straight between its knots, level outside them.

    Args:
        scores: Knots, rising.
        probabilities: Values there, in [0, 1], never falling.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of each score, float64 of the same shape."""
        values: NDArray[np.float64] = np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)
        return values

    def to_document(self) -> dict[str, Any]:
        """Return the curve as plain JSON values."""
        return {"scores": list(self.scores), "probabilities": list(self.probabilities)}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "IsotonicCurve":
        """Return the curve of a document.

        Raises:
            InvalidParameterError: If it is not one.
        """
        try:
            scores = tuple(float(score) for score in document["scores"])
            probabilities = tuple(float(value) for value in document["probabilities"])
        except (KeyError, TypeError, ValueError):
            rule = "an object with lists of numbers, scores and probabilities"
            raise InvalidParameterError("curve", rule=rule, value=document) from None
        rises = all(np.all(np.diff(values) >= 0) for values in (scores, probabilities))
        if not scores or len(scores) != len(probabilities) or not rises or not 0 <= probabilities[0] <= 1:
            raise InvalidParameterError("curve", rule="as many probabilities as scores, both rising", value=document)
        return cls(scores=scores, probabilities=probabilities)


def fit_isotonic(scores: NDArray[np.floating], rights: NDArray[np.floating]) -> IsotonicCurve:
    """Return the never-falling curve with the least squared error, sum_i (p(s_i) - r_i)^2.

    Pool adjacent violators: equal scores are one point, their mean; from low to high, a block whose mean is not
    above the one before it is merged with it, weighted by counts. A block is level from its first to its last score.
    Best with hundreds of answers or more: it has as many degrees of freedom as blocks.

    Source: Ayer et al. 1955, Ann. Math. Stat. 26(4); Zadrozny & Elkan 2002, KDD, for probabilities.

    Args:
        scores: (n,), n >= 1, finite; higher is surer.
        rights: (n,), how right each answer is, in [0, 1].

    Raises:
        InvalidParameterError: If lengths differ or are 0, or a value is outside its range.
    """
    given, right = np.asarray(scores, dtype=np.float64), np.asarray(rights, dtype=np.float64)
    if given.ndim != 1 or given.shape != right.shape or len(given) == 0:
        rule, shapes = "equally long, at least 1", (given.shape, right.shape)
        raise InvalidParameterError("scores and rights", rule=rule, value=shapes)
    if not np.all(np.isfinite(given)) or not np.all((right >= 0) & (right <= 1)):
        raise InvalidParameterError("scores and rights", rule="finite, and rights in [0, 1]", value="some that are not")
    points, places = np.unique(given, return_inverse=True)
    counts = np.bincount(places).astype(np.float64)
    blocks = _pooled(np.bincount(places, weights=right) / counts, counts)
    knots: dict[float, float] = {}
    for first, last, mean in blocks:
        knots[float(points[first])] = mean
        knots[float(points[last])] = mean
    return IsotonicCurve(scores=tuple(knots), probabilities=tuple(knots.values()))


def _pooled(means: NDArray[np.float64], counts: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Return blocks (first point, last point, mean) of rising means."""
    blocks: list[tuple[int, int, float, float]] = []
    for place, (mean, count) in enumerate(zip(means.tolist(), counts.tolist(), strict=True)):
        first = place
        while blocks and blocks[-1][2] >= mean:
            first, _, before, weight = blocks.pop()
            mean, count = (before * weight + mean * count) / (weight + count), weight + count  # noqa: PLW2901
        blocks.append((first, place, mean, count))
    return [(first, last, min(max(mean, 0.0), 1.0)) for first, last, mean, _ in blocks]


def _check_logits(rows: NDArray[np.float64], right: NDArray[Any]) -> None:
    if rows.ndim != 2 or rows.shape[1] < 2 or len(rows) == 0 or right.shape != (len(rows),):
        rule = "of shapes (n, classes) and (n,), n >= 1, classes >= 2"
        raise InvalidParameterError("logits and labels", rule=rule, value=(rows.shape, right.shape))
    if not np.all(np.isfinite(rows)) or not np.all((right >= 0) & (right < rows.shape[1])):
        rule = "finite logits and labels from 0 to classes - 1"
        raise InvalidParameterError("logits and labels", rule=rule, value="some that are not")

"""A small learned scorer: what several signals together say about an answer. Plain NumPy, readable as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from halve.errors import InvalidParameterError

_MOST_STEPS = 60
_TOLERANCE = 1e-9
_BIAS_PENALTY = 1e-4
"""Keeps the bias finite where every answer is right; too small to be seen otherwise."""


@dataclass(frozen=True, kw_only=True)
class LogisticScorer:
    """p(x) = 1 / (1 + exp(-(b + sum_i w_i (x_i - m_i) / s_i))).

    Args:
        features: Names of the signals, in the order of the columns.
        means, scales: m and s, of the examples that it was fitted on; a scale is above 0.
        weights: w, one per feature: how much one deviation of it moves the log-odds.
        bias: b.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def probability(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return p of each row, float64 (n,) in [0, 1], for features (n, d).

        Raises:
            InvalidParameterError: If there are not d columns or a value is NaN.
        """
        values = np.asarray(rows, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.features) or np.any(np.isnan(values)):
            rule = f"numbers of shape (n, {len(self.features)})"
            raise InvalidParameterError("rows", rule=rule, value=values.shape)
        standard = (values - np.array(self.means)) / np.array(self.scales)
        odds: NDArray[np.float64] = expit(standard @ np.array(self.weights) + self.bias)
        return odds

    def to_json(self) -> str:
        """Return the scorer as JSON; floats keep all their digits."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "LogisticScorer":
        """Return the scorer that `to_json` wrote.

        Raises:
            InvalidParameterError: If the text is not one.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            lists = {name: tuple(float(x) for x in document[name]) for name in ("means", "scales", "weights")}
            scorer = cls(features=tuple(map(str, document["features"])), bias=float(document["bias"]), **lists)
        except (KeyError, TypeError, ValueError):
            raise InvalidParameterError("scorer", rule="JSON as to_json writes it", value=text[:80]) from None
        lengths = {len(values) for values in (scorer.features, *lists.values())}
        numbers = (*scorer.means, *scorer.scales, *scorer.weights, scorer.bias)
        if len(lengths) != 1 or not np.all(np.isfinite(numbers)) or min(scorer.scales, default=1.0) <= 0:
            rule = "lists of equal length, finite, with scales above 0"
            raise InvalidParameterError("scorer", rule=rule, value=text[:80])
        return scorer


def fit_scorer(
    rows: NDArray[np.floating], targets: NDArray[np.floating], *, features: Sequence[str], penalty: float = 1.0
) -> LogisticScorer:
    """Return the scorer with the least sum_i -(y log p + (1 - y) log(1 - p)) + (penalty / 2) sum_j w_j^2.

    Features are brought to mean 0 and deviation 1 first, so one penalty suits all. The loss is convex and is
    minimised by Newton's method, each step halved until the loss falls: the same numbers give the same scorer.
    A column that is constant gets weight 0.

    Source: Hosmer & Lemeshow 2000, Applied Logistic Regression; Papke & Wooldridge 1996 for targets between 0 and 1.

    Args:
        rows: Features (n, d), n >= 1, finite.
        targets: (n,), how right each answer is, in [0, 1]; anything in between is a share.
        features: d names.
        penalty: Above 0.

    Raises:
        InvalidParameterError: If shapes do not fit or a value is outside its range.
    """
    values, right = np.asarray(rows, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    _check(values, right, features, penalty)
    means, scales = values.mean(axis=0), values.std(axis=0)
    scales = np.where(scales > 1e-12, scales, 1.0)
    design = np.column_stack([(values - means) / scales, np.ones(len(values))])
    penalties = np.append(np.full(values.shape[1], float(penalty)), _BIAS_PENALTY)
    weights = _minimum(design, right, penalties)
    return LogisticScorer(
        features=tuple(features),
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights[:-1].tolist()),
        bias=float(weights[-1]),
    )


def _minimum(
    design: NDArray[np.float64], right: NDArray[np.float64], penalties: NDArray[np.float64]
) -> NDArray[np.float64]:
    def loss(weights: NDArray[np.float64]) -> float:
        odds = design @ weights
        return float(np.sum(np.logaddexp(0.0, odds) - right * odds) + 0.5 * np.sum(penalties * weights**2))

    weights = np.zeros(design.shape[1])
    now = loss(weights)
    for _ in range(_MOST_STEPS):
        shares = expit(design @ weights)
        slope = design.T @ (shares - right) + penalties * weights
        curvature = (design * (shares * (1 - shares))[:, None]).T @ design + np.diag(penalties)
        step, size = np.linalg.solve(curvature, slope), 1.0
        while loss(weights - size * step) > now and size > 1e-8:
            size /= 2
        weights = weights - size * step
        before, now = now, loss(weights)
        if before - now <= _TOLERANCE * (1 + abs(now)):
            break
    return weights


def _check(values: NDArray[np.float64], right: NDArray[np.float64], features: Sequence[str], penalty: float) -> None:
    if values.ndim != 2 or len(values) == 0 or right.shape != (len(values),) or values.shape[1] != len(features):
        rule = "of shapes (n, features) and (n,), n >= 1"
        raise InvalidParameterError("rows and targets", rule=rule, value=(values.shape, right.shape))
    if not np.all(np.isfinite(values)) or not np.all((right >= 0) & (right <= 1)):
        raise InvalidParameterError("rows and targets", rule="finite, and targets in [0, 1]", value="some that are not")
    if not (penalty > 0 and np.isfinite(penalty)):
        raise InvalidParameterError("penalty", rule="above 0", value=penalty)

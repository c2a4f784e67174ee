"""Logistic regression by Newton's method: the scorer where labels are few; it combines scorers where they are many."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

Array = NDArray[np.float64]

_MOST_ITERATIONS = 50
_SMALL_STEP = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class LogisticModel:
    """Log-odds w . x + b.

    Args:
        weights: float64 (features,).
        bias: b.
    """

    weights: Array
    bias: float

    def logits(self, features: Array) -> Array:
        """Return log-odds, float64 (n,), for float64 (n, features)."""
        # Not a matrix product: that rounds a row differently when there are other rows.
        logits: Array = (features * self.weights).sum(axis=1) + self.bias
        return logits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; `from_arrays` is the way back, bit for bit."""
        return {"weights": self.weights, "bias": np.array(self.bias)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, features: int) -> "LogisticModel":
        """Return the model that `arrays` described.

        Raises:
            InvalidParameterError: If it has weights for another number of features.
        """
        if arrays["weights"].shape != (features,):
            raise InvalidParameterError("weights", rule=f"of shape ({features},)", value=arrays["weights"].shape)
        return cls(weights=arrays["weights"], bias=float(arrays["bias"]))


def probabilities(logits: Array) -> Array:
    """Return 1 / (1 + exp(-logit)), without overflow."""
    half: Array = 0.5 * (1 + np.tanh(logits / 2))
    return half


def fit_logistic(features: Array, right: NDArray[np.bool_], *, penalty: float = 1.0) -> LogisticModel:
    """Return the weights that minimize log loss + penalty |v|^2 / 2, v the weights of standardized features.

    A feature that never varies gets weight 0. The bias is not penalized. Convex, so the start does not matter.

    Source: le Cessie & van Houwelingen 1992, Applied Statistics 41(1), for the ridge; steps are halved as needed.

    Args:
        features: float64 (n, features), finite.
        right: (n,), both values present.
        penalty: > 0.

    Raises:
        InvalidParameterError: If only one value is present, or the penalty is not positive.
    """
    if not 0 < int(np.sum(right)) < len(right):
        raise InvalidParameterError("right", rule="some true and some false", value=f"{int(np.sum(right))} true")
    if not penalty > 0:
        raise InvalidParameterError("penalty", rule="above 0", value=penalty)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-3)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    design = np.column_stack([(features - mean) * scale, np.ones(len(features))])
    ridge = np.append(np.full(len(mean), penalty), 0.0)
    labels = right.astype(np.float64)
    share = labels.mean()
    weights = np.append(np.zeros(len(mean)), np.log(share / (1 - share)))
    loss = _loss(design, labels, weights, ridge)
    for _ in range(_MOST_ITERATIONS):
        chances = probabilities(design @ weights)
        gradient = design.T @ (chances - labels) + ridge * weights
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        weights, loss = _descended(design, labels, weights, ridge, step, loss)
        if float(np.abs(step).max()) < _SMALL_STEP:
            break
    return LogisticModel(weights=weights[:-1] * scale, bias=float(weights[-1] - np.sum(weights[:-1] * scale * mean)))


def _descended(
    design: Array, labels: Array, weights: Array, ridge: Array, step: Array, loss: float
) -> tuple[Array, float]:
    """Return weights after the step, halved until the loss does not rise, and their loss."""
    for _ in range(30):
        tried = weights - step
        tried_loss = _loss(design, labels, tried, ridge)
        if tried_loss <= loss:
            return tried, tried_loss
        step = step / 2
    return weights, loss


def _loss(design: Array, labels: Array, weights: Array, ridge: Array) -> float:
    logits = design @ weights
    return float(np.sum(np.logaddexp(0, logits) - labels * logits) + 0.5 * np.sum(ridge * weights**2))

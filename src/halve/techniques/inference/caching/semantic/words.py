"""Logistic regression on evidence and on single words: a weight for each place of the table of terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import probabilities
from halve.techniques.inference.caching.semantic.terms import BITS, Terms

Array = NDArray[np.float64]

PENALTY = 10.0
"""Of squared weights: ten pairs' worth, which keeps words that were seen once or twice near 0."""

_MOST_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class WordModel:
    """Log-odds w . x + b + sum of the weights of a pair's terms.

    Args:
        weights: float64 (features,): w.
        bias: b.
        table: float32 (2^BITS,): the weight of each place.
    """

    weights: Array
    bias: float
    table: NDArray[np.float32]

    def logits(self, features: Array, terms: Terms) -> Array:
        """Return log-odds, float64 (n,), for float64 (n, features) and the terms of n pairs."""
        logits: Array = (features * self.weights).sum(axis=1) + self.bias + terms.sums(self.table)
        return logits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; `from_arrays` is the way back, bit for bit."""
        return {"weights": self.weights, "bias": np.array(self.bias), "table": self.table}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, features: int) -> "WordModel":
        """Return the model that `arrays` described.

        Raises:
            InvalidParameterError: If shapes are others.
        """
        shapes = arrays["weights"].shape, arrays["table"].shape
        wanted = (features,), (1 << BITS,)
        if shapes != wanted:
            raise InvalidParameterError("weights and table", rule=f"of shapes {wanted}", value=shapes)
        return cls(weights=arrays["weights"], bias=float(arrays["bias"]), table=arrays["table"])


def mean_model(models: Sequence[WordModel]) -> WordModel:
    """Return the model whose log-odds are the mean of the models': it is linear, so weights can be averaged."""
    table: NDArray[np.float32] = np.mean(np.stack([model.table for model in models]), axis=0, dtype=np.float32)
    return WordModel(
        weights=np.mean([model.weights for model in models], axis=0),
        bias=float(np.mean([model.bias for model in models])),
        table=table,
    )


def fit_words(features: Array, terms: Terms, right: NDArray[np.bool_], *, penalty: float = PENALTY) -> WordModel:
    """Return the weights that minimize log loss + penalty |v|^2 / 2, v those of standardized features and of terms.

    By L-BFGS (Liu & Nocedal 1989), from zero.

    Args:
        features: float64 (n, features), finite.
        terms: Of n pairs.
        right: (n,), both values present.
        penalty: > 0.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-3)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    design, matrix, labels = (features - mean) * scale, terms.matrix(), right.astype(np.float64)
    columns, transposed = design.shape[1], matrix.T.tocsr()

    def loss(parameters: Array) -> tuple[float, Array]:
        penalized = parameters[1:]
        logits = parameters[0] + design @ penalized[:columns] + matrix @ penalized[columns:]
        errors = probabilities(logits) - labels
        value = np.sum(np.logaddexp(0, logits) - labels * logits) + penalty / 2 * np.sum(penalized**2)
        slopes = np.concatenate([[errors.sum()], design.T @ errors, transposed @ errors])
        slopes[1:] += penalty * penalized
        return float(value), slopes

    start = np.zeros(1 + columns + matrix.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS}).x
    weights = found[1 : 1 + columns] * scale
    return WordModel(
        weights=weights,
        bias=float(found[0] - np.sum(weights * mean)),
        table=found[1 + columns :].astype(np.float32),
    )

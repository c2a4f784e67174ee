"""Which neurons of a dense feed-forward make up which expert.

The answer of a feed-forward is a sum over its hidden neurons, so any partition of the neurons is exact as long as all
parts are added. Sparse it is good if neurons that matter together are in one part. Two ways to tell: neurons with
similar incoming weights (Zhang et al. 2022, MoEfication, arXiv:2110.01786, section 3.2), or neurons that matter for the
same tokens of a calibration set (its co-activation graph, here as vectors). Neurons that matter for all tokens go into
a shared part that no router decides about (Dai et al. 2024, DeepSeekMoE, arXiv:2401.06066, section 3.2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from halve.errors import InvalidParameterError

FloatArray = NDArray[np.float32] | NDArray[np.float64]

ITERATIONS = 10
"""Rounds of k-means: it settles in fewer, or moves a handful of neurons."""

COMPONENTS = 64
"""Dimensions that co-activation vectors are reduced to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """A partition of hidden neurons.

    Args:
        shared: int64 (shared neurons,): neurons that every token visits.
        experts: int64 (experts, neurons): the others, as many for each expert.
    """

    shared: NDArray[np.int64]
    experts: NDArray[np.int64]


def balanced_clusters(points: FloatArray, *, clusters: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the cluster of each point, int64 (n,), all of the same size: k-means with an exact balanced assignment.

    Lloyd's alternation where the assignment step minimises sum |x_i - c_a(i)|^2 under equal sizes: an assignment
    problem of n points to n / k seats at each centre, solved exactly. Starts at k-means++ seeds. The sum never rises.

    Source: Malinen and Fraenti 2014, Balanced k-means for clustering.

    Args:
        points: (n, dimensions).
        clusters: k >= 1, a divisor of n.
        seed: Of the first centres.

    Raises:
        InvalidParameterError: If there is no point, or k does not divide their number.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not len(points):
        raise InvalidParameterError("points", rule="of shape (n, dimensions), n at least 1", value=points.shape)
    if clusters < 1 or len(points) % clusters:
        raise InvalidParameterError("clusters", rule=f"a divisor of {len(points)} points", value=clusters)
    seats = len(points) // clusters
    centres = _seeds(points, clusters, np.random.default_rng(seed))
    labels = np.full(len(points), -1)
    for _ in range(ITERATIONS):
        rows, columns = linear_sum_assignment(np.repeat(_distances(points, centres), seats, axis=1))
        moved = columns[np.argsort(rows)] // seats
        if np.array_equal(moved, labels):
            break
        labels = moved
        centres = np.stack([points[labels == cluster].mean(axis=0) for cluster in range(clusters)])
    return labels.astype(np.int64)


def split_by_weights(first_weight: FloatArray, *, experts: int, shared: NDArray[np.int64], seed: int = 0) -> Split:
    """Return experts of neurons whose incoming weights point the same way.

    Args:
        first_weight: (neurons, inputs).
        experts: A divisor of the neurons that are not shared.
        shared: int64: neurons that are no expert's.
        seed: Of the clustering.

    Raises:
        InvalidParameterError: If the other neurons cannot be shared out evenly.
    """
    return _split(_unit(np.asarray(first_weight, dtype=np.float64)), experts=experts, shared=shared, seed=seed)


def split_by_activations(activations: FloatArray, *, experts: int, shared: NDArray[np.int64], seed: int = 0) -> Split:
    """Return experts of neurons that matter for the same tokens.

    Each neuron is the vector of its activations less their mean, at unit length, so the distance of two is
    sqrt(2 - 2 correlation): neurons that fire together are close, those that fire in turn are far apart. Reduced by
    principal components to `COMPONENTS` dimensions.

    Args:
        activations: (tokens, neurons), behind the activation function.
        experts, shared, seed: As in `split_by_weights`.

    Raises:
        InvalidParameterError: If the other neurons cannot be shared out evenly.
    """
    away = np.asarray(activations, dtype=np.float64).T
    vectors = _unit(away - away.mean(axis=1, keepdims=True))
    gram = vectors @ vectors.T
    values, axes = np.linalg.eigh(gram)
    kept = slice(-min(COMPONENTS, len(gram)), None)
    return _split(axes[:, kept] * np.sqrt(np.maximum(values[kept], 0)), experts=experts, shared=shared, seed=seed)


def contributions(activations: FloatArray, second_weight: FloatArray) -> FloatArray:
    """Return how far each neuron moves the answer away from its mean, (tokens, neurons): |a - mean a| |v|.

    The mean costs nothing to keep when a neuron is left out (it goes into the bias), so only the rest matters.

    Args:
        activations: (tokens, neurons), behind the activation function.
        second_weight: (outputs, neurons); |v| is the length of a neuron's column.
    """
    lengths = np.linalg.norm(second_weight, axis=0)
    away: FloatArray = np.abs(activations - activations.mean(axis=0)) * lengths
    return away


def always_on(contributions: FloatArray, *, share: float, experts: int) -> NDArray[np.int64]:
    """Return the neurons that matter most over all tokens, ascending, at least this share of all.

    A few more where needed so that the experts can share the rest out evenly.

    Args:
        contributions: (tokens, neurons), >= 0.
        share: Of all neurons, in [0, 1); 0 gives none, if the experts divide the neurons.
        experts: How many share the rest.

    Raises:
        InvalidParameterError: If the share is out of range, or leaves fewer neurons than experts.
    """
    if not 0 <= share < 1:
        raise InvalidParameterError("shared_neurons_share", rule="at least 0 and below 1", value=share)
    neurons = contributions.shape[1]
    left = int(np.floor(neurons * (1 - share) + 1e-9)) // experts * experts
    if left < experts:
        raise InvalidParameterError(
            "experts", rule=f"at most the {neurons} neurons less the shared ones", value=experts
        )
    order = np.argsort(-contributions.mean(axis=0), kind="stable")
    return np.sort(order[: neurons - left]).astype(np.int64)


def _split(vectors: NDArray[np.float64], *, experts: int, shared: NDArray[np.int64], seed: int) -> Split:
    routed = np.setdiff1d(np.arange(len(vectors)), shared)
    if not len(routed) or len(routed) % experts:
        raise InvalidParameterError("experts", rule=f"a divisor of the {len(routed)} routed neurons", value=experts)
    labels = balanced_clusters(vectors[routed], clusters=experts, seed=seed)
    members = np.stack([routed[labels == expert] for expert in range(experts)])
    return Split(shared=np.asarray(shared, dtype=np.int64), experts=members.astype(np.int64))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _distances(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
    distances: NDArray[np.float64] = np.maximum(squares, 0.0)
    return distances


def _seeds(points: NDArray[np.float64], clusters: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return centres by k-means++: each next one is a point drawn with probability like its squared distance."""
    chosen = [int(rng.integers(len(points)))]
    nearest = _distances(points, points[chosen])[:, 0]
    while len(chosen) < clusters:
        total = nearest.sum()
        weights = nearest / total if total > 0 else None
        chosen.append(int(rng.choice(len(points), p=weights)))
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen]

"""How well each answerer did on past requests like this one. The look-up is passed in, so a cache's can be shared."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

Vectors = NDArray[np.floating]
Nearest = Callable[[Vectors, int], tuple[NDArray[np.int64], NDArray[np.float64]]]
"""Takes vectors (m, d) and k; returns positions of past requests, int64 (m, k), and cosines, float64 (m, k). A position
of -1 means that there is none."""


@dataclass(frozen=True, kw_only=True)
class NeighbourSuccess:
    """An estimate of each answerer's score on a request, from the k past requests nearest to it.

        e_j = (a m_j + sum_i w_i s_ij) / (a + sum_i w_i),  w_i = max(cosine_i, 0)

    with s_ij the score of answerer j on neighbour i and m_j its mean over all past requests: far from everything
    known the estimate is the mean, among many like it the neighbours' own. One look-up serves all answerers.

    Source: Hu et al. 2024, RouterBench, arXiv:2403.12031 (the k-nearest router), with shrinkage towards the mean.

    Args:
        scores: Past scores, float64 (past, answerers), past >= 1, in [0, 1].
        nearest: The look-up over the same past requests, in the same order.
        neighbours: k, >= 1.
        prior_weight: a, above 0: how many neighbours the mean counts as.
    """

    scores: NDArray[np.float64]
    nearest: Nearest
    neighbours: int = 10
    prior_weight: float = 3.0

    def __post_init__(self) -> None:
        shape = np.shape(self.scores)
        if len(shape) != 2 or shape[0] == 0 or not np.all((self.scores >= 0) & (self.scores <= 1)):
            raise InvalidParameterError("scores", rule="in [0, 1], of shape (past, answerers), past >= 1", value=shape)
        if self.neighbours < 1:
            raise InvalidParameterError("neighbours", rule="at least 1", value=self.neighbours)
        if not self.prior_weight > 0:
            raise InvalidParameterError("prior_weight", rule="above 0", value=self.prior_weight)

    def estimate(self, vectors: Vectors, *, leave_out: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return the estimates, float64 (m, answerers) in [0, 1], for vectors (m, d).

        Args:
            vectors: Of the requests, in the encoder of the past ones.
            leave_out: int64 (m,): a past request that must not count for each one. Pass a request's own position
                when past requests themselves are estimated, or it would vouch for itself.
        """
        extra = 0 if leave_out is None else 1
        places, cosines = self.nearest(vectors, self.neighbours + extra)
        counts = (places >= 0) if leave_out is None else (places >= 0) & (places != leave_out[:, None])
        counts &= np.cumsum(counts, axis=1) <= self.neighbours
        weights = np.where(counts, np.maximum(cosines, 0.0), 0.0)
        found = self.scores[np.where(places >= 0, places, 0)]
        total = np.einsum("mk,mka->ma", weights, found)
        means = self.scores.mean(axis=0)
        estimates: NDArray[np.float64] = (self.prior_weight * means + total) / (
            self.prior_weight + weights.sum(axis=1, keepdims=True)
        )
        return np.clip(estimates, 0.0, 1.0)


def exact_nearest(past: Vectors) -> Nearest:
    """Return a look-up that compares with every past vector: right for up to a hundred thousand or so.

    Args:
        past: (past, d), at unit length.
    """
    kept = np.asarray(past)

    def nearest(vectors: Vectors, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        cosines = np.asarray(vectors @ kept.T, dtype=np.float64)
        size = min(k, cosines.shape[1])
        some = np.argpartition(-cosines, size - 1, axis=1)[:, :size]
        values = np.take_along_axis(cosines, some, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        places = np.take_along_axis(some, order, axis=1).astype(np.int64)
        return places, np.take_along_axis(values, order, axis=1)

    return nearest

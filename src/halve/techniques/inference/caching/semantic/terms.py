"""Which words two texts share and which stand in one only, as places in a table of weights; the words are not kept.

Surface differences say how many words differ. Which words matter, that `india` is not `china` but `best` nearly `good`,
is learned from them, word by word.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from halve.techniques.inference.caching.semantic.wording import Wording, wording

BITS = 16
"""Logarithm of the places."""

MOST_PAIRINGS = 9
"""Words of one text are paired with those of the other if there are at most so many pairs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """Terms of pairs of texts, one pair after the other.

    Args:
        places: int64 (terms,), each in [0, 2^BITS).
        starts: int64 (pairs + 1,): pair i has places starts[i] to starts[i + 1].
    """

    places: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def kept(self, rows: NDArray[np.bool_]) -> "Terms":
        """Return the terms of some pairs.

        Args:
            rows: bool (pairs,).
        """
        counts = np.diff(self.starts)
        return Terms(places=self.places[np.repeat(rows, counts)], starts=_starts(counts[rows]))

    def followed_by(self, others: "Terms") -> "Terms":
        """Return these pairs and then others."""
        return Terms(
            places=np.concatenate([self.places, others.places]),
            starts=np.concatenate([self.starts, others.starts[1:] + self.starts[-1]]),
        )

    def matrix(self) -> csr_array:
        """Return how often each pair has each place, float32 (pairs, 2^BITS), sparse."""
        ones = np.ones(len(self.places), dtype=np.float32)
        return csr_array((ones, self.places, self.starts), shape=(len(self), 1 << BITS))

    def sums(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return for each pair the sum of its places' weights, float64 (pairs,), each summed alone."""
        found = np.zeros(len(self))
        filled = np.flatnonzero(np.diff(self.starts))
        if len(filled):
            found[filled] = np.add.reduceat(weights[self.places].astype(np.float64), self.starts[filled])
        return found


def pair_terms(ones: Sequence[str], others: Sequence[str]) -> Terms:
    """Return the terms of pairs of texts; which text comes first does not matter.

    A term is a word that both have, a word that one has, two content words of which each text has one (if there are
    at most nine such pairings), or what the two texts ask for. Places are hashes (Weinberger et al. 2009,
    arXiv:0902.2206).

    Args:
        ones, others: As many of each.
    """
    rows = [_places(wording(one), wording(other)) for one, other in zip(ones, others, strict=True)]
    places = [place for row in rows for place in row]
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    return Terms(places=np.array(places, dtype=np.int64), starts=_starts(counts))


def _places(one: Wording, other: Wording) -> list[int]:
    terms = [f"one {word}" for word in one.known ^ other.known]
    terms += [f"both {word}" for word in one.known & other.known]
    here, there = one.content - other.content, other.content - one.content
    if len(here) * len(there) <= MOST_PAIRINGS:
        terms += [f"pair {min(a, b)} {max(a, b)}" for a in here for b in there]
    terms.append(f"asks {min(one.question, other.question)} {max(one.question, other.question)}")
    # Sets have another order in every process, and sums of floats depend on it.
    return sorted(zlib.crc32(term.encode()) & ((1 << BITS) - 1) for term in terms)


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])

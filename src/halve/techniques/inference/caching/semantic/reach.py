"""How near the nearest stored question must be for a look-up to be looked into, by how sure it would have to be."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import nextafter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halve.errors import InvalidParameterError

LEVELS = (0.0, *(round(step / 20, 2) for step in range(1, 20)))
"""Probabilities for which a cosine is kept."""

FARTHEST_SHARE = 0.002
"""Of the right look-ups that are so sure: so few have a nearest neighbour that is farther away."""

FEWEST = 200
"""Right look-ups that are so sure, below which the cosine of the level before stands: quantiles of few say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A look-up whose nearest cosine is below that of a level counts as less sure than the level, whatever its texts.

    Nearly all such look-ups are less sure anyway. So one that could not reach the threshold is a miss before its texts
    are compared, and the result is what it would have been: the limit is part of the probability, at every threshold.

    Args:
        levels: Probabilities, rising, the first 0.
        cosines: As many, never falling, in [-1, 1].

    Raises:
        InvalidParameterError: If a value breaks its rule.
    """

    levels: tuple[float, ...] = (0.0,)
    cosines: tuple[float, ...] = (-1.0,)

    def __post_init__(self) -> None:
        if not self.levels or self.levels[0] != 0 or np.any(np.diff(self.levels) <= 0):
            raise InvalidParameterError("levels", rule="rising from 0", value=self.levels)
        whole = len(self.cosines) == len(self.levels) and all(-1 <= cosine <= 1 for cosine in self.cosines)
        if not whole or np.any(np.diff(self.cosines) < 0):
            rule = f"{len(self.levels)} in [-1, 1] that never fall"
            raise InvalidParameterError("cosines", rule=rule, value=self.cosines)

    @classmethod
    def of(cls, nearest: ArrayLike, probabilities: ArrayLike) -> "Reach":
        """Return what right look-ups show: for each level the cosine that one in 500 of those so sure falls short of.

        Args:
            nearest: float (n,): the nearest cosine of each right look-up.
            probabilities: float (n,): what is said of each by a scorer that has not seen it.
        """
        cosines: NDArray[np.float64] = np.asarray(nearest, dtype=np.float64)
        sure = np.asarray(probabilities, dtype=np.float64)
        floors, floor = [], -1.0
        for level in LEVELS:
            chosen = cosines[sure >= level]
            if len(chosen) >= FEWEST:
                floor = max(floor, min(float(np.quantile(chosen, FARTHEST_SHARE)), 1.0))
            floors.append(floor)
        return cls(levels=LEVELS, cosines=tuple(floors))

    def least_cosine(self, probability: float) -> float:
        """Return how near the nearest neighbour must be for a look-up to be so sure.

        Args:
            probability: >= 0.
        """
        return self.cosines[bisect_right(self.levels, probability) - 1]

    def most(self, cosine: float) -> float:
        """Return how sure a look-up with this nearest cosine can be, in [0, 1]."""
        place = bisect_right(self.cosines, cosine)
        if place == len(self.cosines):
            return 1.0
        return nextafter(self.levels[place], 0.0)

    def to_document(self) -> dict[str, Any]:
        """Return it as plain JSON-able values; `from_document` is the way back, bit for bit."""
        return {"levels": list(self.levels), "cosines": list(self.cosines)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Reach":
        """Return the reach that a document describes.

        Raises:
            InvalidParameterError: If a value breaks its rule.
            KeyError: If something is missing.
        """
        return cls(
            levels=tuple(float(level) for level in document["levels"]),
            cosines=tuple(float(cosine) for cosine in document["cosines"]),
        )

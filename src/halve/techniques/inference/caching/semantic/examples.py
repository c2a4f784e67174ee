"""Evidence of many pairs or look-ups in one piece: numbers, and for pairs also vectors and terms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.terms import Terms

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What scorers read, row by row.

    Args:
        features: float64 (n, f).
        ones, others: float32 (n, d): vectors of question and stored question; both or neither.
        terms: Of n pairs of texts; None for look-ups.

    Raises:
        InvalidParameterError: If there are not as many of each.
    """

    features: Array
    ones: Vectors | None = None
    others: Vectors | None = None
    terms: Terms | None = None

    def __post_init__(self) -> None:
        n = len(self.features)
        if self.features.ndim != 2:
            raise InvalidParameterError("features", rule="of shape (n, f)", value=self.features.shape)
        if (self.ones is None) != (self.others is None):
            raise InvalidParameterError("ones and others", rule="both given or neither", value=None)
        if self.ones is not None and self.others is not None:
            shapes = self.ones.shape, self.others.shape
            if self.ones.ndim != 2 or len(self.ones) != n or shapes[0] != shapes[1]:
                raise InvalidParameterError("ones and others", rule=f"of shape ({n}, d)", value=shapes)
        if self.terms is not None and len(self.terms) != n:
            raise InvalidParameterError("terms", rule=f"of {n} pairs", value=len(self.terms))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dimension(self) -> int:
        """Of the vectors, 0 without."""
        return 0 if self.ones is None else self.ones.shape[1]

    def kept(self, rows: NDArray[np.bool_]) -> "Examples":
        """Return some rows.

        Args:
            rows: bool (n,).
        """
        return Examples(
            features=self.features[rows],
            ones=None if self.ones is None else self.ones[rows],
            others=None if self.others is None else self.others[rows],
            terms=None if self.terms is None else self.terms.kept(rows),
        )

    def followed_by(self, more: "Examples") -> "Examples":
        """Return these rows and then more; vectors and terms only where both have them, or one has no rows."""
        if not len(self):
            return more
        if not len(more):
            return self
        return Examples(
            features=np.concatenate([self.features, more.features]),
            ones=_joined(self.ones, more.ones),
            others=_joined(self.others, more.others),
            terms=self.terms.followed_by(more.terms) if self.terms is not None and more.terms is not None else None,
        )


def _joined(vectors: Vectors | None, more: Vectors | None) -> Vectors | None:
    return None if vectors is None or more is None else np.concatenate([vectors, more])

"""What a full cache would find: each text looked up among all the others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.evidence import Lookup
from halve.techniques.inference.caching.semantic.neighbour import Neighbour

_BLOCK = 1024


def lookups_among(
    texts: Sequence[str], vectors: NDArray[np.float32], answers: Sequence[str], *, count: int = 8
) -> list[Lookup]:
    """Return, for each text, the look-up that a cache of every other text would see, in the order of the texts.

    An identical text is left out as well: it would be an exact hit, which is another matter. Neighbours' `entry` is
    their place in `texts`.

    Args:
        texts: n of them.
        vectors: float32 (n, d), of unit length.
        answers: n digests: equal ones are equal answers.
        count: Neighbours per look-up, >= 1; fewer where there are fewer others.

    Raises:
        InvalidParameterError: If lengths differ or count is below 1.
    """
    if not len(texts) == len(vectors) == len(answers):
        lengths = (len(texts), len(vectors), len(answers))
        raise InvalidParameterError("texts, vectors and answers", rule="equally many", value=lengths)
    if count < 1:
        raise InvalidParameterError("count", rule="at least 1", value=count)
    numbers: dict[str, int] = {}
    kind = np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)
    found: list[Lookup] = []
    for start in range(0, len(texts), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(texts)))
        cosines = vectors[rows] @ vectors.T
        cosines[kind[rows][:, None] == kind[None, :]] = -np.inf
        for row, values in zip(rows.tolist(), cosines, strict=True):
            near = [place for place in _largest(values, count).tolist() if values[place] > -np.inf]
            neighbours = tuple(
                Neighbour(
                    entry=place,
                    text=texts[place],
                    answer=answers[place],
                    cosine=float(np.clip(values[place], -1.0, 1.0)),
                )
                for place in near
            )
            found.append(Lookup(text=texts[row], neighbours=neighbours, vector=vectors[row], vectors=vectors[near]))
    return found


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the largest values, largest first, the earlier of equals first."""
    count = min(count, len(values))
    some = np.argpartition(-values, count - 1)[:count] if count < len(values) else np.arange(len(values))
    return some[np.lexsort((some, -values[some]))]

"""What a cache would find: each text looked up among all others, or among those that came before it."""

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
    places, found = np.arange(len(texts)), []
    for start in range(0, len(texts), _BLOCK):
        rows = places[start : start + _BLOCK]
        cosines = vectors[rows] @ vectors.T
        cosines[kind[rows][:, None] == kind] = -np.inf
        for row, values in zip(rows.tolist(), cosines, strict=True):
            found.append(_lookup(row, places, values, texts, vectors, answers, count=count))
    return found


def lookups_in_time(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    answers: Sequence[str],
    partitions: Sequence[str],
    *,
    places: NDArray[np.int64] | None = None,
    stored: int | None = None,
    count: int = 8,
) -> list[Lookup]:
    """Return, for each text, the look-up among the earlier texts of its partition, in order.

    Args:
        texts: n of them, by arrival; different ones within a partition, see `first_of_each`.
        vectors, answers, count: As in `lookups_among`.
        partitions: n names.
        places: int64 (m,): which texts, rising; None: all.
        stored: Only the latest so many earlier ones, >= 1: what a cache sees that was started so many questions ago,
            or that holds no more. None: all of them.

    Raises:
        InvalidParameterError: If lengths differ, or count or stored is below 1.
    """
    lengths = (len(texts), len(vectors), len(answers), len(partitions))
    if len(set(lengths)) != 1:
        raise InvalidParameterError("texts, vectors, answers and partitions", rule="equally many", value=lengths)
    for name, value in (("count", count), ("stored", stored)):
        if value is not None and value < 1:
            raise InvalidParameterError(name, rule="at least 1", value=value)
    members: dict[str, list[int]] = {}
    for place, name in enumerate(partitions):
        members.setdefault(name, []).append(place)
    wanted = np.arange(len(texts)) if places is None else places
    most = len(texts) if stored is None else stored
    found: dict[int, Lookup] = {}
    for home in members.values():
        own = np.array(home, dtype=np.int64)
        asked = np.flatnonzero(np.isin(own, wanted))
        for start in range(0, len(asked), _BLOCK):
            rows = asked[start : start + _BLOCK]
            columns = np.arange(max(0, int(rows[0]) - most), int(rows[-1]))
            cosines = vectors[own[rows]] @ vectors[own[columns]].T
            cosines[(columns >= rows[:, None]) | (columns < rows[:, None] - most)] = -np.inf
            for row, values in zip(own[rows].tolist(), cosines, strict=True):
                found[row] = _lookup(row, own[columns], values, texts, vectors, answers, count=count)
    return [found[place] for place in wanted.tolist()]


def earlier_in_partition(partitions: Sequence[str]) -> NDArray[np.int64]:
    """Return how many texts of the same partition came before each."""
    counts: dict[str, int] = {}
    earlier = []
    for name in partitions:
        earlier.append(counts.get(name, 0))
        counts[name] = earlier[-1] + 1
    return np.array(earlier, dtype=np.int64)


def first_of_each(texts: Sequence[str], partitions: Sequence[str]) -> NDArray[np.int64]:
    """Return where each text of each partition appears first, rising: all else is an exact repeat."""
    seen: set[tuple[str, str]] = set()
    places = []
    for place, key in enumerate(zip(partitions, texts, strict=True)):
        if key not in seen:
            seen.add(key)
            places.append(place)
    return np.array(places, dtype=np.int64)


def _lookup(
    row: int,
    places: NDArray[np.int64],
    cosines: NDArray[np.float32],
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    answers: Sequence[str],
    *,
    count: int,
) -> Lookup:
    """Return the look-up of one text among texts at other places, those of cosine -inf left out."""
    chosen = [column for column in _largest(cosines, count).tolist() if cosines[column] > -np.inf]
    near = [int(places[column]) for column in chosen]
    neighbours = tuple(
        Neighbour(
            entry=place, text=texts[place], answer=answers[place], cosine=float(np.clip(cosines[column], -1.0, 1.0))
        )
        for place, column in zip(near, chosen, strict=True)
    )
    return Lookup(text=texts[row], neighbours=neighbours, vector=vectors[row], vectors=vectors[near])


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the largest values, largest first, the earlier of equals first."""
    count = min(count, len(values))
    if not count:
        return np.empty(0, dtype=np.int64)
    some = np.argpartition(-values, count - 1)[:count] if count < len(values) else np.arange(len(values))
    return some[np.lexsort((some, -values[some]))]

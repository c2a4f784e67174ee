"""What a cache would find: each text looked up among all others, or among those that came before it."""

from collections.abc import Callable, Sequence

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

    def hidden(rows: NDArray[np.int64], columns: int) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = kind[rows][:, None] == kind[None, :columns]
        return same

    return _found(texts, vectors, answers, hidden=hidden, count=count, grows=False)


def lookups_in_time(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    answers: Sequence[str],
    partitions: Sequence[str],
    *,
    count: int = 8,
) -> list[Lookup]:
    """Return, for each text, the look-up among the earlier texts of its partition, in order.

    Args:
        texts: n of them, by arrival; different ones within a partition, see `first_of_each`.
        vectors, answers, count: As in `lookups_among`.
        partitions: n names.

    Raises:
        InvalidParameterError: If lengths differ or count is below 1.
    """
    lengths = (len(texts), len(vectors), len(answers), len(partitions))
    if len(set(lengths)) != 1:
        raise InvalidParameterError("texts, vectors, answers and partitions", rule="equally many", value=lengths)
    if count < 1:
        raise InvalidParameterError("count", rule="at least 1", value=count)
    numbers: dict[str, int] = {}
    home = np.array([numbers.setdefault(name, len(numbers)) for name in partitions], dtype=np.int64)

    def hidden(rows: NDArray[np.int64], columns: int) -> NDArray[np.bool_]:
        later: NDArray[np.bool_] = np.arange(columns)[None, :] >= rows[:, None]
        elsewhere: NDArray[np.bool_] = home[rows][:, None] != home[None, :columns]
        return np.logical_or(later, elsewhere)

    return _found(texts, vectors, answers, hidden=hidden, count=count, grows=True)


def lookups_in_window(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    answers: Sequence[str],
    partitions: Sequence[str],
    *,
    places: NDArray[np.int64],
    stored: int,
    count: int = 8,
) -> list[Lookup]:
    """Return, for some texts, the look-up among the latest so many earlier texts of its partition.

    Such a look-up is what a cache sees that was started that many questions ago, or that holds no more.

    Args:
        texts, vectors, answers, partitions, count: As in `lookups_in_time`.
        places: int64 (m,): which texts, rising.
        stored: Earlier texts that are looked at, >= 1.

    Returns:
        m look-ups, in the order of `places`.
    """
    members: dict[str, list[int]] = {}
    for place, name in enumerate(partitions):
        members.setdefault(name, []).append(place)
    asked: dict[str, list[int]] = {}
    for place in places.tolist():
        asked.setdefault(partitions[place], []).append(place)
    found: dict[int, Lookup] = {}
    for name, rows in asked.items():
        own = np.array(members[name], dtype=np.int64)
        at = np.searchsorted(own, rows)
        for start in range(0, len(rows), _BLOCK):
            block = at[start : start + _BLOCK]
            first = max(0, int(block[0]) - stored)
            columns = np.arange(first, int(block[-1]))
            cosines = vectors[own[block]] @ vectors[own[columns]].T
            cosines[(columns >= block[:, None]) | (columns < block[:, None] - stored)] = -np.inf
            for row, values in zip(own[block].tolist(), cosines, strict=True):
                found[row] = _lookup(row, own[columns], values, texts, vectors, answers, count=count)
    return [found[place] for place in places.tolist()]


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


def _found(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    answers: Sequence[str],
    *,
    hidden: Callable[[NDArray[np.int64], int], NDArray[np.bool_]],
    count: int,
    grows: bool,
) -> list[Lookup]:
    """Return each text's nearest ones that are not hidden from it; of those up to it, if the store grows."""
    found: list[Lookup] = []
    for start in range(0, len(texts), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(texts)))
        columns = int(rows[-1]) + 1 if grows else len(texts)
        cosines = vectors[rows] @ vectors[:columns].T
        cosines[hidden(rows, columns)] = -np.inf
        for row, values in zip(rows.tolist(), cosines, strict=True):
            found.append(_lookup(row, np.arange(columns), values, texts, vectors, answers, count=count))
    return found


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

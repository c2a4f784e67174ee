"""What a cache is asked, in which order, and the nearest stored questions of each look-up, the same for every policy.

Every look-up is stored once it is answered, or never, whatever a policy decided, so contents and neighbours depend on
no policy: a trace is built once and replayed by all. Neighbours are exact: all stored questions are compared.

`pair_splits` (long tail, hard negatives): the questions of QQP fall into four parts of equal size; questions that
any pair connects stay together. Two parts are for training, one chooses thresholds, one is scored. Training takes
minutes, so SEEDS_PER_TRAINING seeds share its parts, and each draws the other two anew. In each part the first
question of every pair is stored, then its partner is asked, with all other stored questions around it. A served
answer is right if people labelled the two questions duplicates, directly or through others (transitive closure).
Neighbours that nobody labelled count as wrong, though some are paraphrases: shares of false hits are upper bounds,
for all alike.

`judged` is the same stream with the judged neighbours alone.

`intent_splits` (dense): the queries of CLINC150 in random order, each asked once and then stored; the oldest is
dropped beyond the capacity. The answer is the intent. For a query out of scope any answer is wrong, and its own is of
no use to another: it must miss.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks._semantic_cache.data import OUT_OF_SCOPE, Intents, QuestionPairs
from halve.demo.training import computed_once

NEIGHBOURS = 8
"""As many as the cache looks at."""
PARTS = 4
"""Of QQP: two to train on, one to choose thresholds, one to score."""

SEEDS_PER_TRAINING = 5
"""Seeds whose scorers are the same; their calibration and test streams are not."""

SHARES = (0.4, 0.3, 0.3)
"""Of CLINC150: to train on, to choose thresholds, to score."""

BLOCK = 1024

Numbers = NDArray[np.int64]
Cosines = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Look-ups and what lay near each of them in the cache.

    Args:
        asked: int64 (n,), numbers of questions, in order.
        neighbours: int64 (n, NEIGHBOURS), numbers of stored questions by falling cosine; -1 where there are no more.
        cosines: float32 of the same shape; -1 where there is none.
        right: bool of the same shape: whether that one's answer would be right.
        answers: int64 of the same shape: equal numbers are equal answers.
    """

    asked: Numbers
    neighbours: Numbers
    cosines: Cosines
    right: NDArray[np.bool_]
    answers: Numbers

    def __len__(self) -> int:
        return len(self.asked)


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """One seed's streams; no question occurs in two of them.

    Args:
        train: What scorers may learn from.
        calibration: Where thresholds are chosen.
        test: Scored once.
    """

    train: tuple[Stream, ...]
    calibration: Stream
    test: Stream


def pair_splits(data: QuestionPairs, *, seed: int, part_size: int | None = None) -> Splits:
    """Return the streams of QQP for one seed.

    Args:
        data: Pairs and vectors.
        seed: Of the parts, the side of each pair that is stored, and the order.
        part_size: Questions in a part; None for a quarter of all.
    """
    size = len(data.component) // PARTS if part_size is None else part_size
    shared, own = np.random.default_rng((seed // SEEDS_PER_TRAINING, 1)), np.random.default_rng((seed, 2))
    names, counts = np.unique(data.component, return_counts=True)
    parts, left = component_parts(names, counts, shared, size=size)
    train = [_drawn_pair_stream(data, part, shared) for part in parts]
    parts, _ = component_parts(names[left], counts[left], own, size=size)
    calibration, test = (_drawn_pair_stream(data, part, own) for part in parts)
    return Splits(train=tuple(train), calibration=calibration, test=test)


def judged(data: QuestionPairs, stream: Stream) -> Stream:
    """Return the same look-ups with the stored questions that people judged for them, and no others, as neighbours.

    Those are the other side of a labelled pair and what is a duplicate through others. Every label is a person's, so
    shares of false hits are what they are, but for wrong labels; most of the negatives were chosen to be hard.

    Args:
        data: Pairs and vectors.
        stream: Of one part of QQP.
    """
    stored = np.zeros(len(data.meaning), dtype=bool)
    stored[_stored_of(data, stream)] = True
    judgements: dict[int, set[int]] = {question: set() for question in stream.asked.tolist()}
    for one, other in np.concatenate([data.pairs, data.pairs[:, ::-1]]).tolist():
        if one in judgements and stored[other]:
            judgements[one].add(other)
    same: dict[int, list[int]] = {}
    for entry in np.flatnonzero(stored).tolist():
        same.setdefault(int(data.meaning[entry]), []).append(entry)
    neighbours = np.full((len(stream), NEIGHBOURS), -1, dtype=np.int64)
    cosines = np.full((len(stream), NEIGHBOURS), -1, dtype=np.float32)
    vectors = data.questions.vectors
    for row, question in enumerate(stream.asked.tolist()):
        known = np.array(sorted(judgements[question].union(same.get(int(data.meaning[question]), []))))
        found = vectors[known] @ vectors[question]
        order = np.argsort(-found, kind="stable")[:NEIGHBOURS]
        neighbours[row, : len(order)], cosines[row, : len(order)] = known[order], found[order]
    right = (data.meaning[neighbours] == data.meaning[stream.asked][:, None]) & (neighbours >= 0)
    return Stream(asked=stream.asked, neighbours=neighbours, cosines=cosines, right=right, answers=neighbours)


def _stored_of(data: QuestionPairs, stream: Stream) -> Numbers:
    """Return the stored questions of a stream: those of its components that are not asked."""
    members = np.isin(data.component, data.component[stream.asked])
    members[stream.asked] = False
    return np.flatnonzero(members)


def component_parts(
    names: Numbers, counts: Numbers, generator: np.random.Generator, *, size: int
) -> tuple[list[Numbers], Numbers]:
    """Return two disjoint sets of components, and the places of those that are in neither.

    Args:
        names: int64 (n,), of components.
        counts: int64 (n,), questions in each.
        generator: Draws the order.
        size: Questions in a set, or a few less.
    """
    order = generator.permutation(len(names))
    first, second = np.searchsorted(np.cumsum(counts[order]), [size, 2 * size], side="right")
    return [names[order[:first]], names[order[first:second]]], order[second:]


def asked_and_stored(
    pairs: Numbers, members: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[Numbers, Numbers]:
    """Return which questions are asked, in random order, and which lie in the cache.

    Pairs are gone through in random order with random sides. The first question of a pair is stored and the second
    asked; where one of them has its role from an earlier pair, the other gets the opposite one. No question has two.

    Args:
        pairs: int64 (m, 2).
        members: bool (questions,), those of this part; a pair is in it with both sides or not at all.
        generator: Draws order and sides.
    """
    chosen = pairs[members[pairs[:, 0]]]
    chosen = generator.permuted(chosen[generator.permutation(len(chosen))], axis=1)
    is_stored: dict[int, bool] = {}
    for first, second in chosen.tolist():
        if first in is_stored:
            is_stored.setdefault(second, not is_stored[first])
        elif second in is_stored:
            is_stored[first] = not is_stored[second]
        else:
            is_stored[first], is_stored[second] = True, False
    asked = np.array([question for question, stored in is_stored.items() if not stored], dtype=np.int64)
    stored = np.array([question for question, stored in is_stored.items() if stored], dtype=np.int64)
    return generator.permutation(asked), stored


def intent_splits(data: Intents, *, seed: int, capacity_share: float, size: int | None = None) -> Splits:
    """Return the streams of CLINC150 for one seed and capacity.

    Args:
        data: Queries and vectors.
        seed: Of the split and the order; the same for all capacities.
        capacity_share: Entries that the cache holds, over the distinct queries of the scored stream, in (0, 1).
        size: Queries in all three streams; None for all there are.
    """
    shared, own = np.random.default_rng((seed // SEEDS_PER_TRAINING, 3)), np.random.default_rng((seed, 4))
    order = shared.permutation(len(data.intent))[:size]
    first, second = np.round(np.cumsum(SHARES[:2]) * len(order)).astype(int)
    train, rest = order[:first], own.permutation(order[first:])
    calibration, test = rest[: second - first], rest[second - first :]
    capacity = max(NEIGHBOURS, round(capacity_share * len(test)))
    streams = [intent_stream(data, queries, capacity=capacity) for queries in (train, calibration, test)]
    return Splits(train=(streams[0],), calibration=streams[1], test=streams[2])


def intent_stream(data: Intents, queries: Numbers, *, capacity: int) -> Stream:
    """Return the stream of these queries in this order, before each of which the last `capacity` are stored."""
    places, cosines = sliding_nearest(data.questions.vectors[queries], capacity=capacity, k=NEIGHBOURS)
    neighbours = np.where(places >= 0, queries[places], -1)
    intent = np.where(neighbours >= 0, data.intent[neighbours], OUT_OF_SCOPE)
    right = (intent == data.intent[queries][:, None]) & (intent != OUT_OF_SCOPE)
    # What is out of scope got an answer of its own, which nobody shares.
    answers = np.where(intent == OUT_OF_SCOPE, len(data.intent) + neighbours, intent)
    return Stream(asked=queries, neighbours=neighbours, cosines=cosines, right=right, answers=answers)


def pair_stream(data: QuestionPairs, asked: Numbers, places: Numbers, cosines: Cosines, stored: Numbers) -> Stream:
    """Return the stream of QQP whose neighbours are `places` in `stored`. Every stored question has its own answer."""
    neighbours = np.where(places >= 0, stored[places], -1)
    right = (data.meaning[neighbours] == data.meaning[asked][:, None]) & (neighbours >= 0)
    return Stream(asked=asked, neighbours=neighbours, cosines=cosines, right=right, answers=neighbours)


def nearest(asked: Cosines, stored: Cosines, *, k: int) -> tuple[Numbers, Cosines]:
    """Return the k stored vectors with the largest cosine of each asked one: places and cosines, both (n, k).

    Args:
        asked: float32 (n, dimension), unit length.
        stored: float32 (m, dimension), unit length.
        k: At least 1; where there are fewer, places and cosines are -1.
    """
    places = np.full((len(asked), k), -1, dtype=np.int64)
    cosines = np.full((len(asked), k), -1, dtype=np.float32)
    for start in range(0, len(asked), BLOCK):
        rows = slice(start, start + BLOCK)
        places[rows], cosines[rows] = _top(asked[rows] @ stored.T, k)
    return places, cosines


def sliding_nearest(vectors: Cosines, *, capacity: int, k: int) -> tuple[Numbers, Cosines]:
    """Return the same as `nearest` for each vector among the `capacity` vectors before it.

    Args:
        vectors: float32 (n, dimension), unit length, in order.
        capacity: Entries kept, the oldest leaves first, at least 1.
        k: As in `nearest`.
    """
    places = np.full((len(vectors), k), -1, dtype=np.int64)
    cosines = np.full((len(vectors), k), -1, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        end, first = min(start + BLOCK, len(vectors)), max(0, start - capacity)
        found = vectors[start:end] @ vectors[first:end].T
        row, column = np.arange(start, end)[:, None], np.arange(first, end)[None, :]
        found[(column >= row) | (column < row - capacity)] = -2
        near, cosine = _top(found, k)
        known = cosine > -2
        places[start:end], cosines[start:end] = np.where(known, near + first, -1), np.where(known, cosine, -1)
    return places, cosines


def _top(products: Cosines, k: int) -> tuple[Numbers, Cosines]:
    """Return columns and values of the k largest of every row, falling; -1 and -1 beyond the columns there are."""
    columns = products.shape[1]
    some = np.argpartition(products, columns - k, axis=1)[:, -k:] if columns > k else _all_columns(products)
    values = np.take_along_axis(products, some, axis=1)
    order = np.lexsort((some, -values), axis=1)
    missing = ((0, 0), (0, max(0, k - columns)))
    return (
        np.pad(np.take_along_axis(some, order, axis=1), missing, constant_values=-1),
        np.pad(np.take_along_axis(values, order, axis=1), missing, constant_values=-1),
    )


def _all_columns(products: Cosines) -> Numbers:
    return np.tile(np.arange(products.shape[1]), (len(products), 1))


def _drawn_pair_stream(data: QuestionPairs, part: Numbers, generator: np.random.Generator) -> Stream:
    """Return the stream of some components; its neighbours are kept in HALVE_CACHE, since they take seconds."""
    import torch

    asked, stored = asked_and_stored(data.pairs, np.isin(data.component, part), generator)

    def compute() -> dict[str, torch.Tensor]:
        vectors = data.questions.vectors
        places, cosines = nearest(vectors[asked], vectors[stored], k=NEIGHBOURS)
        return {"places": torch.from_numpy(places), "cosines": torch.from_numpy(cosines)}

    recipe = {"neighbours": NEIGHBOURS, "vectors": data.questions.digest}
    state = computed_once(
        "semantic-cache-trace", recipe=recipe, data={"asked": asked, "stored": stored}, compute=compute
    )
    return pair_stream(data, asked, state["places"].numpy(), state["cosines"].numpy(), stored)

"""What a cache full of answers would answer, and how sure it would be: a table like any other answerer's."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halve.techniques.inference.caching.semantic.among import lookups_among
from halve.techniques.inference.caching.semantic.policy import HitPolicy


def full_cache(
    policy: HitPolicy,
    *,
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    stored: NDArray[np.int64],
    classes: int,
    neighbours: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return, for each text, what a cache that holds every other text's answer would answer.

    Args:
        policy: Scores neighbours; its threshold should let every candidate through, for the caller to choose one.
        texts, vectors: n texts and their vectors, float32 (n, d), unit length.
        stored: int64 (n,): the stored answer to each text, a class.
        classes: Of the answers, >= 1.
        neighbours: Looked at, >= 1.

    Returns:
        int64 (n,), 0 where nothing is found, and float32 (n, classes), as `spread` makes them.
    """
    lookups = lookups_among(texts, vectors, [str(answer) for answer in stored.tolist()], count=neighbours)
    decisions = policy.decide_many(lookups)
    answers = np.array([0 if made.entry is None else int(stored[made.entry]) for made in decisions], np.int64)
    return answers, spread(answers, np.array([made.probability for made in decisions]), classes=classes)


def spread(answers: NDArray[np.int64], sure: NDArray[np.float64], *, classes: int) -> NDArray[np.float32]:
    """Return rows of probabilities: `sure` at each answer's class, the rest evenly; even rows where it is less sure.

    Args:
        answers: int64 (n,), each in [0, classes).
        sure: float64 (n,), each in [0, 1].
        classes: >= 1.

    Returns:
        float32 (n, classes), rows sum to 1; of no row is another class more likely than the answer.
    """
    sure = np.maximum(sure, 1 / classes)
    rows = np.repeat(((1 - sure) / max(classes - 1, 1))[:, None], classes, axis=1)
    np.put_along_axis(rows, answers[:, None], sure[:, None], axis=1)
    return rows.astype(np.float32)

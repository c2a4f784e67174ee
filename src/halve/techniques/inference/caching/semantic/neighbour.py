"""What a look-up finds, and what is decided about it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One stored question near the one that was asked.

    Args:
        entry: Number of the entry in its store.
        text: The stored question.
        answer: Digest of the stored answer: equal digests are equal answers.
        cosine: Of the angle between the two questions' vectors, in [-1, 1].
    """

    entry: int
    text: str
    answer: str
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a stored answer is served.

    Args:
        hit: Whether it is.
        entry: Whose answer; None for a miss.
        probability: That the nearest entry's answer is right, calibrated, in [0, 1]; 0 if there is none.
        reason: One short clause, for logs and reports.
    """

    hit: bool
    entry: int | None
    probability: float
    reason: str

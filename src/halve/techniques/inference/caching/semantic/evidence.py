"""What a look-up shows, as numbers: how near the stored questions are, whether their answers agree, what differs.

Two kinds. Evidence of a pair compares the question with one stored question. Evidence of a look-up adds the neighbours
around: the second neighbour with another answer, and the vote of all. Learns nothing, decides nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import differences as surface
from halve.techniques.inference.caching.semantic.differences import differences_of_pairs
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.rarity import Rarity
from halve.techniques.inference.caching.semantic.wording import wording

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]

VOTE_SCALE = 0.05
"""Fall of cosine over which a neighbour's vote falls by e."""

MOST_LOGIT = 8.0
"""Log-odds beyond this count as this: probabilities nearer to 0 or 1 cannot be learned from thousands of look-ups."""

PAIR_NAMES = ("cosine", "words_least", "words_most", *surface.NAMES)
"""Evidence of a pair: the cosine, the logarithm of 1 + words of the shorter and longer text, and the differences."""

LOOKUP_NAMES = (
    "logit",  # log-odds of the pair that is asked about
    "logit_over_others",  # how far that is above the best pair with another answer
    "answer_logit",  # log-odds that some scored pair with the same answer is right, taken as independent
    "answer_logit_over_others",  # how far that is above the best other answer's
    "cosine",  # of the pair
    "cosine_behind_nearest",  # how far the nearest neighbour's cosine is above it
    "margin",  # cosine minus that of the nearest neighbour with another answer
    "agreement",  # weighted share of neighbours with the same answer, in (0, 1]
    "same_answers",  # logarithm of the neighbours with the same answer
    "other_answers",  # logarithm of 1 + different answers among the others
    "density",  # cosine minus the mean cosine of the neighbours with other answers
)
"""Evidence of a look-up, besides that of its pair. Where no neighbour has another answer, its cosine counts as 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lookup:
    """A question and what the store found for it.

    Args:
        text: The question.
        neighbours: By falling cosine; may be empty.
        vector: float32 (d,) of the question, and
        vectors: float32 (k, d) of the first k neighbours; both or neither.
    """

    text: str
    neighbours: tuple[Neighbour, ...]
    vector: Vectors | None = None
    vectors: Vectors | None = None

    def __post_init__(self) -> None:
        if (self.vector is None) != (self.vectors is None):
            raise InvalidParameterError("vector and vectors", rule="both given or neither", value=None)
        if self.vector is not None and self.vectors is not None:
            shape, most = self.vectors.shape, len(self.neighbours)
            if self.vector.ndim != 1 or shape[1:] != self.vector.shape or shape[0] > most:
                rule = f"of shape (at most {most}, {len(self.vector)})"
                raise InvalidParameterError("vectors", rule=rule, value=shape)


def pair_evidence(
    ones: Sequence[str], others: Sequence[str], *, cosines: Sequence[float] | Array, rarity: Rarity | None = None
) -> Array:
    """Return the evidence of pairs of texts, float64 (n, len(PAIR_NAMES)).

    Args:
        ones, others: As many of each; which is which does not matter.
        cosines: Of their vectors, (n,).
        rarity: Weight of words.

    Raises:
        InvalidParameterError: If there are not as many of each.
    """
    if len(cosines) != len(ones):
        raise InvalidParameterError("cosines", rule=f"as many as pairs, {len(ones)}", value=len(cosines))
    found = differences_of_pairs(ones, others, rarity=rarity or Rarity())
    counts = [
        sorted((len(wording(one).words), len(wording(other).words))) for one, other in zip(ones, others, strict=True)
    ]
    lengths = np.log1p(np.array(counts, dtype=np.float64).reshape(len(counts), 2))
    return np.column_stack([np.asarray(cosines, dtype=np.float64), lengths, found])


def lookup_evidence(neighbours: Sequence[Neighbour], *, logits: Sequence[float] | Array, candidate: int) -> Array:
    """Return the evidence of a look-up about one of its neighbours, float64 (len(LOOKUP_NAMES),).

    Votes weigh exp((cosine - nearest cosine) / 0.05).

    Args:
        neighbours: By falling cosine.
        logits: Log-odds of the first pairs, as many as were scored, at least candidate + 1.
        candidate: The neighbour in question, from 0.
    """
    chosen = neighbours[candidate]
    cosines = [neighbour.cosine for neighbour in neighbours]
    same = [neighbour.answer == chosen.answer for neighbour in neighbours]
    nearest, votes, agreeing, others = cosines[0], 0.0, 0.0, []
    for cosine, agrees in zip(cosines, same, strict=True):
        weight = float(np.exp((cosine - nearest) / VOTE_SCALE))
        votes += weight
        if agrees:
            agreeing += weight
        else:
            others.append(cosine)
    limited = [min(max(float(logit), -MOST_LOGIT), MOST_LOGIT) for logit in logits]
    answers = answer_logits([neighbour.answer for neighbour in neighbours[: len(limited)]], limited)
    rival = max((logit for answer, logit in answers.items() if answer != chosen.answer), default=-MOST_LOGIT)
    against = max((logit for logit, agrees in zip(limited, same, strict=False) if not agrees), default=-MOST_LOGIT)
    distinct = len({neighbour.answer for neighbour in neighbours}) - 1
    return np.array(
        (
            limited[candidate],
            limited[candidate] - against,
            answers[chosen.answer],
            answers[chosen.answer] - rival,
            chosen.cosine,
            nearest - chosen.cosine,
            chosen.cosine - max(others, default=0.0),
            agreeing / votes,
            float(np.log(sum(same))),
            float(np.log1p(distinct)),
            chosen.cosine - (sum(others) / len(others) if others else 0.0),
        )
    )


def answer_logits(answers: Sequence[str], logits: Sequence[float]) -> dict[str, float]:
    """Return for each answer the log-odds that one of its pairs is right: 1 - product of (1 - p), as if independent.

    Noisy-or, Pearl 1988. Limited to +-MOST_LOGIT as its parts are.

    Args:
        answers: Of pairs; equal ones together.
        logits: Of the same pairs.
    """
    silence: dict[str, float] = {}
    for answer, logit in zip(answers, logits, strict=True):
        limited = min(max(float(logit), -MOST_LOGIT), MOST_LOGIT)
        silence[answer] = silence.get(answer, 0.0) + math.log1p(math.exp(limited))
    # -s is the log of the product, so the odds are (1 - e^-s) / e^-s = e^s - 1.
    return {answer: min(math.log(math.expm1(missed)), MOST_LOGIT) for answer, missed in silence.items()}

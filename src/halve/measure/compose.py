"""What a stack would answer, and who would answer it, by look-up in recorded outcomes. Runs no model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.core import Acceptance, FloatArray, IntArray, Outcomes, Stack, Stage, Traffic
from halve.errors import InvalidParameterError

AcceptedMask = Callable[[NDArray[np.float32], Acceptance], NDArray[np.bool_]]
"""(probabilities (n, classes), acceptance) -> whether each answer stands. The cascading technique's own rule."""

CacheHits = Callable[[IntArray, FloatArray, Stage], NDArray[np.bool_]]
"""(content (n,), arrival_seconds (n,), cache stage) -> whether each arrival hits. The caching technique's own."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A stack over the examples of one split.

    Args:
        stage: int64 (n,): index into `stack.model_stages` of the stage that answers.
        scores: float64 (n,).
        answers: The answers, as the stack would give them.
    """

    stage: IntArray
    scores: FloatArray
    answers: NDArray[np.int64] | NDArray[np.object_]


def compose(stack: Stack, *, outcomes: Mapping[str, Outcomes], accepted: AcceptedMask) -> Composition:
    """Return who answers each example, what, and how well.

    A cache stage changes nothing here: it returns what the rest of the chain answered before.

    Args:
        outcomes: By model name, all over the same examples.

    Raises:
        InvalidParameterError: If a stage needs a confidence and its model gave no probabilities.
    """
    stages = stack.model_stages
    last = outcomes[str(stages[-1].model)]
    stage = np.full(len(last.answers), len(stages) - 1, dtype=np.int64)
    open_rows = np.ones(len(stage), dtype=np.bool_)
    scores, answers = last.scores.copy(), last.answers.copy()
    for index, candidate in enumerate(stages[:-1]):
        table = outcomes[str(candidate.model)]
        if candidate.accept is None or table.probabilities is None:
            rule = "a model that gives probabilities, to be accepted by confidence"
            raise InvalidParameterError(f"stage {candidate.model}", rule=rule, value="none")
        wins = open_rows & accepted(table.probabilities, candidate.accept)
        stage[wins], scores[wins], answers[wins] = index, table.scores[wins], table.answers[wins]
        open_rows &= ~wins
    return Composition(stage=stage, scores=scores, answers=answers)


def exits(stack: Stack, *, traffic: Traffic, composition: Composition, cache_hits: CacheHits) -> IntArray:
    """Return the station at which each arrival leaves: 0 the gateway (a cache hit), 1.. the model stages."""
    n = len(composition.stage)
    leaving = composition.stage[traffic.example % n] + 1
    cache = stack.cache_stage
    if cache is not None:
        leaving[cache_hits(traffic.content, traffic.arrival_seconds, cache)] = 0
    return leaving

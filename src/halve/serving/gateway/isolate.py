"""One model's word on one batch. One bad input fails alone: the rest is asked again without it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from halve.core import Answerer, Payload, Prediction
from halve.errors import AnswerError
from halve.serving.gateway.chain import Answered, Link


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A batch, sorted out: every position is in exactly one of the three."""

    answered: dict[int, Answered] = field(default_factory=dict)
    declined: list[int] = field(default_factory=list)
    failed: dict[int, AnswerError] = field(default_factory=dict)


def answer_isolated(answerer: Answerer, payloads: Sequence[Payload], *, link: Link) -> Outcome:
    """Answer a batch; inputs that the model cannot answer fail alone.

    An `AnswerError` names its input: that one is dropped and the rest retried. Any other exception does
    not say who is to blame, so the batch is halved until the guilty are alone.
    """
    outcome = Outcome()
    todo = [list(range(len(payloads)))] if payloads else []
    while todo:
        positions = todo.pop()
        try:
            prediction = answerer.answer([payloads[position] for position in positions])
            stands = _stands(prediction, link, expected=len(positions))
        except AnswerError as error:
            todo.extend(_without_named(error, positions, outcome, model=link.model.name))
        except Exception as error:  # a model is foreign code: whatever it raises belongs to its inputs
            todo.extend(_halved(error, positions, outcome, model=link.model.name))
        else:
            _sort(prediction, stands, positions, outcome, stage=link.model.name)
    return outcome


def _stands(prediction: Prediction, link: Link, *, expected: int) -> list[bool]:
    if len(prediction) != expected:
        raise RuntimeError(f"it gave {len(prediction)} answers to {expected} inputs")
    if link.accepts is None:
        return [True] * expected
    return [bool(stands) for stands in np.asarray(link.accepts(prediction)).tolist()]


def _sort(prediction: Prediction, stands: list[bool], positions: list[int], outcome: Outcome, *, stage: str) -> None:
    answers = prediction.answers.tolist()
    rows = prediction.probabilities
    for row, position in enumerate(positions):
        if stands[row]:
            outcome.answered[position] = Answered(answers[row], None if rows is None else rows[row], stage)
        else:
            outcome.declined.append(position)


def _without_named(error: AnswerError, positions: list[int], outcome: Outcome, *, model: str) -> list[list[int]]:
    if not 0 <= error.index < len(positions):
        return _halved(error, positions, outcome, model=model)
    bad = positions[error.index]
    outcome.failed[bad] = AnswerError(model, index=bad, cause=error.cause)
    rest = [position for position in positions if position != bad]
    return [rest] if rest else []


def _halved(error: Exception, positions: list[int], outcome: Outcome, *, model: str) -> list[list[int]]:
    if len(positions) == 1:
        cause = f"{type(error).__name__}: {error}"
        outcome.failed[positions[0]] = AnswerError(model, index=positions[0], cause=cause)
        return []
    middle = len(positions) // 2
    return [positions[:middle], positions[middle:]]

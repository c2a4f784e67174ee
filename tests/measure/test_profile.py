from collections.abc import Sequence

import numpy as np
import pytest

from halve.core import Example, Payload, Prediction
from halve.errors import AnswerError
from halve.measure.profile import BATCH_SIZES, profile_curve, profile_outcomes
from halve.workload import Accuracy


class Parity:
    """Answers whether the payload's first number is odd, and counts what it is asked."""

    def __init__(self, *, fails_on: float | None = None) -> None:
        self.fails_on, self.batches, self.closed = fails_on, [], 0

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        self.batches.append(len(payloads))
        firsts = [float(np.asarray(payload).flat[0]) for payload in payloads]
        if self.fails_on in firsts:
            raise AnswerError("parity", index=firsts.index(self.fails_on or 0.0), cause="boom")
        answers = np.array([int(first) % 2 for first in firsts])
        return Prediction(answers=answers, probabilities=np.eye(2, dtype=np.float32)[answers])

    def close(self) -> None:
        self.closed += 1


EXAMPLES = [Example(payload=np.full((2,), i, np.float32), reference=0) for i in range(70)]


def test_every_example_is_answered_once_in_order() -> None:
    done: list[int] = []
    outcomes = profile_outcomes(Parity(), model="m", examples=EXAMPLES, metric=Accuracy(), advance=done.append)
    assert outcomes.answers.tolist() == [i % 2 for i in range(70)]
    assert outcomes.scores.tolist() == [1 - i % 2 for i in range(70)]
    assert outcomes.probabilities is not None
    assert outcomes.probabilities.shape == (70, 2)
    assert np.all(outcomes.compute_seconds > 0)
    assert sum(done) == 70


def test_a_model_that_raises_names_the_example_of_the_split() -> None:
    with pytest.raises(AnswerError, match="model 'm' failed on input 66: boom"):
        profile_outcomes(
            Parity(fails_on=66.0), model="m", examples=EXAMPLES, metric=Accuracy(), advance=lambda steps: None
        )


def test_a_curve_holds_every_size_that_is_quick_enough() -> None:
    model = Parity()
    curve = profile_curve(
        lambda: model,
        model="m",
        threads=1,
        payloads=[example.payload for example in EXAMPLES],
        longest_batch_seconds=10.0,
        budget_seconds=0.0,
    )
    assert curve.batch_sizes == BATCH_SIZES
    assert all(len(samples) == 7 for samples in curve.samples_seconds)
    assert model.closed == 1
    # Sizes come in turn after the warm-up: a slow moment hits all of them alike.
    assert tuple(model.batches[-len(BATCH_SIZES) :]) == BATCH_SIZES


def test_sizes_that_could_not_keep_the_promise_are_dropped_but_never_size_one() -> None:
    curve = profile_curve(
        Parity, model="m", threads=1, payloads=[EXAMPLES[0].payload], longest_batch_seconds=0.0, budget_seconds=0.0
    )
    assert curve.batch_sizes == (1,)

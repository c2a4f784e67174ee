import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Deployment, Model, Prediction
from halve.errors import AnswerError
from halve.serving.gateway.chain import Link
from halve.serving.gateway.isolate import answer_isolated
from halve.testing.fakes import FakeAnswerer


def link(accepts=None):
    return Link(
        model=Model(name="m", engine="recorded"), deployment=Deployment(model="m", instance_type="box"), accepts=accepts
    )


def tensors(values):
    return [np.array([value], dtype=np.float32) for value in values]


@given(st.lists(st.sampled_from(["good", "fails", "breaks", "unsure"]), max_size=24))
def test_each_input_gets_what_it_deserves_whatever_shares_its_batch(kinds):
    payloads = tensors(range(len(kinds)))

    def is_kind(kind):
        return lambda payload: kinds[int(payload[0])] == kind

    answerer = FakeAnswerer(
        classes=50,
        fails_on=is_kind("fails"),
        breaks_on=is_kind("breaks"),
        confidence=lambda payload: 0.3 if is_kind("unsure")(payload) else 0.9,
    )
    outcome = answer_isolated(answerer, payloads, link=link(lambda batch: batch.probabilities.max(axis=1) > 0.5))
    by_kind = {kind: {n for n, other in enumerate(kinds) if other == kind} for kind in ("good", "unsure")}
    assert {position: answer.answer for position, answer in outcome.answered.items()} == {n: n for n in by_kind["good"]}
    assert sorted(outcome.declined) == sorted(by_kind["unsure"])
    assert set(outcome.failed) == set(range(len(kinds))) - by_kind["good"] - by_kind["unsure"]
    for position, error in outcome.failed.items():
        assert error.index == position
        cause = "it was told to fail" if kinds[position] == "fails" else "ValueError: it was told to break"
        assert error.cause == cause


def test_a_named_culprit_costs_one_retry():
    answerer = FakeAnswerer(fails_on=lambda payload: payload[0] == 2)
    answer_isolated(answerer, tensors(range(8)), link=link())
    assert answerer.batch_sizes == [8, 7]


def test_answers_carry_probabilities_and_the_stage():
    outcome = answer_isolated(FakeAnswerer(classes=4), tensors([3]), link=link())
    assert outcome.answered[0].stage == "m"
    assert outcome.answered[0].probabilities == pytest.approx([1 / 30, 1 / 30, 1 / 30, 0.9])


class Liar:
    """Gives one answer, whatever it is asked."""

    def answer(self, payloads):
        return Prediction(answers=np.zeros(1, dtype=np.int64))

    def close(self):
        pass


def test_too_few_answers_are_no_answers():
    outcome = answer_isolated(Liar(), tensors([1, 2]), link=link())
    # Alone, each input gets its one answer: the batch was the problem.
    assert set(outcome.answered) == {0, 1}
    assert outcome.answered[0].probabilities is None


class Misnamer:
    """Blames an input that does not exist."""

    def answer(self, payloads):
        raise AnswerError("m", index=99, cause="somebody")

    def close(self):
        pass


def test_an_error_that_blames_nobody_present_fails_all_of_them():
    outcome = answer_isolated(Misnamer(), tensors([1, 2, 3]), link=link())
    assert set(outcome.failed) == {0, 1, 2}
    assert "99: somebody" in outcome.failed[1].cause


def test_an_acceptance_that_raises_fails_the_inputs_it_was_asked_about():
    def broken(prediction):
        raise ZeroDivisionError("no")

    outcome = answer_isolated(FakeAnswerer(), tensors([1]), link=link(broken))
    assert outcome.failed[0].cause == "ZeroDivisionError: no"

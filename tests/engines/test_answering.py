import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from halve.engines.answering import answer_batch, softmax
from halve.errors import AnswerError

LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**127), 2.0**127, width=32),
)


@given(LOGITS)
def test_softmax_is_a_distribution_and_keeps_the_order(logits):
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    rows = np.arange(len(logits))
    np.testing.assert_array_equal(probabilities[rows, logits.argmax(axis=1)], probabilities.max(axis=1))


def test_softmax_golden():
    np.testing.assert_allclose(softmax(np.array([[0, np.log(3)]], np.float32)), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(softmax(np.array([[1e30, 1e30]], np.float32)), [[0.5, 0.5]])


def test_ties_go_to_the_lowest_index():
    prediction = answer_batch("m", ["x"], logits_of=lambda _: np.array([[1, 3, 3]], np.float32))
    assert prediction.answers.tolist() == [1]
    assert prediction.answers.dtype == np.int64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_name_the_input(bad):
    def logits_of(payloads):
        logits = np.zeros((len(payloads), 2), np.float32)
        logits[2, 1] = bad
        return logits

    with pytest.raises(AnswerError, match="model 'm' failed on input 2: its logits hold NaN or infinity") as caught:
        answer_batch("m", ["a", "b", "c", "d"], logits_of=logits_of)
    assert caught.value.index == 2


def test_a_failing_batch_is_taken_apart_to_find_the_input_at_fault():
    def logits_of(payloads):
        if "bad" in payloads:
            raise RuntimeError("no such\n word")
        return np.zeros((len(payloads), 2), np.float32)

    with pytest.raises(AnswerError, match="failed on input 1: RuntimeError: no such word"):
        answer_batch("m", ["good", "bad", "bad"], logits_of=logits_of)


def test_payloads_that_fail_only_together_are_answered_one_by_one():
    def logits_of(payloads):
        if len(payloads) > 1:
            raise ValueError("shapes differ")
        return np.array([[len(payloads[0]), 2]], np.float32)

    assert answer_batch("m", ["a", "bbbb", "cc"], logits_of=logits_of).answers.tolist() == [1, 0, 0]


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 4), (3, 4, 5)])
def test_output_of_another_shape_is_refused(shape):
    with pytest.raises(AnswerError, match=r"input 0: ValueError: logits must have shape \(1, classes\)"):
        answer_batch("m", ["a", "b", "c"], logits_of=lambda _: np.zeros(shape, np.float32))


def test_inputs_that_disagree_on_the_number_of_classes_are_refused():
    def logits_of(payloads):
        if len(payloads) > 1:
            raise ValueError
        return np.zeros((1, len(payloads[0])), np.float32)

    with pytest.raises(AnswerError, match="input 1: it returned 3 classes, and 2 on input 0"):
        answer_batch("m", ["aa", "bbb"], logits_of=logits_of)


def test_long_messages_are_cut():
    def logits_of(_):
        raise RuntimeError("x" * 5000)

    with pytest.raises(AnswerError) as caught:
        answer_batch("m", ["a"], logits_of=logits_of)
    assert len(str(caught.value)) < 400

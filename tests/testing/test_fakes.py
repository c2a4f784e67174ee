import numpy as np
import pytest

from halve.errors import AnswerError
from halve.testing.fakes import FakeAnswerer, label_of


def tensors(*values):
    return [np.array([value], dtype=np.float32) for value in values]


def test_answers_follow_the_first_value_or_the_length():
    prediction = FakeAnswerer(classes=4).answer([*tensors(2, 7), "abc"])
    assert prediction.answers.tolist() == [2, 3, 3]
    assert prediction.answers.dtype == np.int64
    assert prediction.answers.tolist() == [label_of(payload, 4) for payload in (*tensors(2, 7), "abc")]


def test_probabilities_are_as_sure_as_told_and_sum_to_one():
    prediction = FakeAnswerer(classes=5, confidence=lambda payload: 0.5 + payload[0] / 10).answer(tensors(1, 3))
    assert prediction.probabilities.dtype == np.float32
    assert prediction.probabilities.sum(axis=1) == pytest.approx([1, 1])
    assert prediction.probabilities[[0, 1], [1, 3]] == pytest.approx([0.6, 0.8])
    assert prediction.probabilities.argmax(axis=1).tolist() == [1, 3]


def test_an_empty_batch_gives_an_empty_prediction():
    prediction = FakeAnswerer(classes=3).answer([])
    assert len(prediction) == 0
    assert prediction.probabilities.shape == (0, 3)


def test_texts_may_be_answered():
    assert FakeAnswerer(classes=2, labels=("no", "yes")).answer(tensors(1)).answers.tolist() == ["yes"]


def test_failures_name_their_input_and_breakage_names_nobody():
    with pytest.raises(AnswerError, match="model 'x' failed on input 1: it was told to fail"):
        FakeAnswerer(name="x", fails_on=lambda payload: payload[0] == 5).answer(tensors(4, 5))
    with pytest.raises(ValueError, match="it was told to break"):
        FakeAnswerer(breaks_on=lambda payload: payload[0] == 5).answer(tensors(4, 5))


def test_it_remembers_what_it_was_asked():
    answerer = FakeAnswerer()
    answerer.answer(tensors(1, 2))
    answerer.answer(tensors(3))
    assert answerer.batch_sizes == [2, 1]
    answerer.close()
    answerer.close()
    assert answerer.is_closed

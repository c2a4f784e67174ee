import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import (
    log_probabilities_of,
    log_probabilities_of_counts,
    log_probabilities_of_logits,
)


def matrices(low, high):
    shape = st.tuples(st.integers(1, 5), st.integers(2, 9))
    return arrays.arrays(np.float64, shape, elements=st.floats(low, high))


@given(logits=matrices(-500, 500), offset=st.floats(-100, 100))
def test_logits_become_log_probabilities_whatever_their_offset(logits, offset):
    answers = log_probabilities_of_logits(logits)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(np.exp(answers.astype(float)).sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(log_probabilities_of_logits(logits + offset), answers, atol=1e-3)


def test_probabilities_may_hold_zeros_and_be_a_little_off():
    answers = log_probabilities_of(np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.502]], np.float32))
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(np.exp(answers[0]), [0.5, 0.5, 0], atol=1e-7)
    assert np.exp(answers[1]).sum() == pytest.approx(1, abs=1e-6)


def test_counts_by_hand():
    # 3 answers over 3 classes with a = 1: (2 + 1/3) / 4 = 7/12, (1 + 1/3) / 4 = 4/12, (0 + 1/3) / 4 = 1/12.
    answers = log_probabilities_of_counts(np.array([[2, 1, 0], [0, 0, 0]]))
    np.testing.assert_allclose(np.exp(answers), [[7 / 12, 4 / 12, 1 / 12], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    # a = N adds one to every class: (2 + 1) / 6.
    plus_one = log_probabilities_of_counts(np.array([[2, 1, 0]]), smoothing=3)
    np.testing.assert_allclose(np.exp(plus_one), [[3 / 6, 2 / 6, 1 / 6]], rtol=1e-6)


@given(counts=matrices(0, 1000), smoothing=st.floats(0.01, 100))
def test_counts_sum_to_one_and_keep_their_order(counts, smoothing):
    answers = np.exp(log_probabilities_of_counts(counts, smoothing=smoothing).astype(float))
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    ordered = np.take_along_axis(answers, np.argsort(counts, axis=1), axis=1)
    assert (np.diff(ordered, axis=1) >= -1e-6).all()


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameterError, match=r"logits must be \(rows, at least 2 classes\)\. Got \(3,\)"):
        log_probabilities_of_logits(np.zeros(3))
    with pytest.raises(InvalidParameterError, match="logits must be finite"):
        log_probabilities_of_logits(np.array([[0.0, np.inf]]))
    with pytest.raises(InvalidParameterError, match=r"probabilities must be at least 0\. Got -0\.1"):
        log_probabilities_of(np.array([[1.1, -0.1]]))
    with pytest.raises(InvalidParameterError, match=r"probabilities must be rows that sum to 1\. Got 0\.9"):
        log_probabilities_of(np.array([[0.5, 0.5], [0.5, 0.4]]))
    with pytest.raises(InvalidParameterError, match=r"counts must be at least 0\. Got -1\.0"):
        log_probabilities_of_counts(np.array([[1, -1]]))
    with pytest.raises(InvalidParameterError, match=r"smoothing must be positive\. Got 0"):
        log_probabilities_of_counts(np.array([[1, 1]]), smoothing=0)

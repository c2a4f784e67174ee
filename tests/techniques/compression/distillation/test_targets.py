import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Targets
from halve.techniques.compression.distillation.targets import (
    TEMPERATURES,
    compressed,
    index_type,
    largest_k,
    row_bytes,
)


def answers(classes, rows=4, spread=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return log_softmax(spread * rng.standard_normal((rows, classes)), axis=1).astype(np.float32)


def exact_masses(full, targets, temperature):
    softened = np.exp(log_softmax(full.astype(np.float64) / temperature, axis=1))
    indices = targets.indices.astype(np.int64)
    listed = np.take_along_axis(softened, indices, axis=1)
    return np.concatenate([listed, 1 - listed.sum(axis=1, keepdims=True)], axis=1)


def test_a_row_by_hand():
    # p = (0.1, 0.6, 0.05, 0.25), k = 2: classes 1 and 3 are listed; the tail is 0.15 at T = 1.
    # At T = 2: sqrt 0.1 + sqrt 0.05 = 0.316228 + 0.223607 = 0.539835 over sqrt 0.6 + sqrt 0.25 + 0.539835 = 1.814432:
    # the tail has 0.297523, class 1 has 0.774597 / 1.814432 = 0.426909.
    targets = compressed(np.log(np.array([[0.1, 0.6, 0.05, 0.25]])), k=2)
    assert targets.indices.tolist() == [[1, 3]]
    assert targets.indices.dtype == np.uint8
    np.testing.assert_allclose(np.exp(targets.log_masses(1))[0], [0.6, 0.25, 0.15], atol=5e-4)
    np.testing.assert_allclose(np.exp(targets.log_masses(2))[0], [0.426909, 0.275568, 0.297523], atol=5e-4)
    # The tail's 0.15 is spread over two classes.
    np.testing.assert_allclose(np.exp(targets.dense_log_probabilities())[0], [0.075, 0.6, 0.075, 0.25], atol=5e-4)


@given(
    classes=st.integers(3, 300),
    k=st.integers(1, 100),
    temperature=st.sampled_from([*TEMPERATURES, 1.3, 3.0, 6.0, 20.0]),
    spread=st.floats(0.1, 6),
    seed=st.integers(0, 99),
)
def test_the_round_trip_error_is_bounded_and_mass_sums_to_one(classes, k, temperature, spread, seed):
    k = min(k, classes - 1)
    full = answers(classes, spread=spread, seed=seed)
    targets = compressed(full, k=k)
    masses = np.exp(targets.log_masses(temperature))
    np.testing.assert_allclose(masses.sum(axis=1), 1, atol=1e-5)
    bound = 4e-3 if temperature in TEMPERATURES else 6e-2
    assert np.abs(masses - exact_masses(full, targets, temperature)).max() <= bound
    dense = np.exp(targets.dense_log_probabilities().astype(np.float64))
    np.testing.assert_allclose(dense.sum(axis=1), 1, atol=5e-3)


@given(classes=st.integers(2, 40), seed=st.integers(0, 99))
def test_with_every_class_listed_there_is_no_tail(classes, seed):
    full = answers(classes, seed=seed)
    targets = compressed(full, k=classes)
    assert targets.indices is None
    assert targets.tail is None
    np.testing.assert_allclose(targets.dense_log_probabilities(), full, atol=8e-3)
    np.testing.assert_allclose(targets.log_masses(3), log_softmax(full / 3, axis=1), atol=8e-3)


def test_the_listed_classes_are_the_likeliest_in_order_and_are_not_renormalised():
    full = answers(1000, rows=16)
    targets = compressed(full, k=10)
    expected = np.argsort(-full, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(targets.indices, expected)
    np.testing.assert_allclose(targets.log_probabilities, np.take_along_axis(full, expected, 1), rtol=1e-3)
    assert targets.log_probabilities.dtype == np.float16
    assert (np.exp(targets.log_probabilities.astype(float)).sum(axis=1) < 0.999).all()


def test_between_the_temperatures_the_tail_is_interpolated_in_their_inverse():
    full = answers(500, rows=3)
    targets = compressed(full, k=20)
    halves = (targets.tail_log_sum(2) + targets.tail_log_sum(4)) / 2
    np.testing.assert_allclose(targets.tail_log_sum(1 / ((1 / 2 + 1 / 4) / 2)), halves, atol=1e-5)
    np.testing.assert_allclose(targets.tail_log_sum(1e9), np.log(480), atol=1e-4)
    others = full.astype(np.float64).copy()
    np.put_along_axis(others, targets.indices.astype(int), -np.inf, axis=1)
    np.testing.assert_allclose(targets.tail_log_sum(8), logsumexp(others / 8, axis=1), atol=5e-3)


def test_excluded_classes_are_allowed():
    full = np.full((2, 50), -np.inf)
    full[0, 3], full[1, :2] = 0.0, np.log(0.5)
    targets = compressed(full, k=5)
    masses = np.exp(targets.log_masses(2.0))
    np.testing.assert_allclose(masses[0], [1, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(masses[1], [0.5, 0.5, 0, 0, 0, 0], atol=1e-3)


def test_rows_are_taken_in_the_order_asked_for():
    targets = compressed(answers(30, rows=6), k=4)
    taken = targets.take(np.array([4, 1]))
    assert len(taken) == 2
    np.testing.assert_array_equal(taken.log_masses(2), targets.log_masses(2)[[4, 1]])


@given(classes=st.integers(2, 200_000), budget=st.integers(32, 1000))
def test_a_row_stays_within_its_budget(classes, budget):
    k = largest_k(classes, row_budget=budget)
    assert 1 <= k <= classes
    assert row_bytes(classes, k) <= budget
    assert k == classes or row_bytes(classes, k + 1) > budget or k == classes - 1
    assert np.iinfo(index_type(classes)).max >= classes - 1


@pytest.mark.parametrize(("classes", "kind"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")])
def test_indices_have_the_smallest_type(classes, kind):
    assert index_type(classes) == np.dtype(kind)


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameterError, match=r"targets must be \(rows, at least 2 classes\)"):
        Targets.dense(np.zeros((3, 1)))
    with pytest.raises(InvalidParameterError, match="targets must be log-probabilities without NaN"):
        Targets.dense(np.full((3, 2), np.nan))
    with pytest.raises(InvalidParameterError, match=r"k must be at least 1\. Got 0"):
        compressed(answers(3), k=0)
    with pytest.raises(InvalidParameterError, match="targets must be targets with a tail"):
        Targets.dense(answers(3)).tail_log_sum(2)

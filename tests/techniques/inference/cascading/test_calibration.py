import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    IsotonicCurve,
    fit_isotonic,
    fit_temperature,
    negative_log_likelihood,
)

SCORES = [0.1, 0.2, 0.3, 0.4, 0.5]


def test_temperature_by_hand():
    # Two classes, z = (2, 0), right 3 times of 4: softmax(2 / T)[0] must be 3/4, so 2 / T = log 3.
    logits, labels = np.tile([2.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(2 / np.log(3))


def test_temperature_at_its_limits():
    logits = np.array([[3.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(logits, np.array([0, 1])) == LOWEST_TEMPERATURE
    assert fit_temperature(logits, np.array([1, 0])) == HIGHEST_TEMPERATURE


@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_temperature_is_found_again_and_is_the_minimum(seed, temperature):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(60, 3)) * 3
    labels = random.integers(3, size=60)
    found = fit_temperature(logits, labels)
    least = negative_log_likelihood(logits, labels, temperature=found)
    assert least <= negative_log_likelihood(logits, labels, temperature=temperature) + 1e-12
    if LOWEST_TEMPERATURE < found < HIGHEST_TEMPERATURE:
        scaled = min(max(found * temperature, LOWEST_TEMPERATURE), HIGHEST_TEMPERATURE)
        assert fit_temperature(logits * temperature, labels) == pytest.approx(scaled, rel=1e-6)


def test_isotonic_by_hand():
    # 0, 1, 0 at .2 .3 .4: the last two pool to 1/2.
    curve = fit_isotonic(np.array(SCORES), np.array([0.0, 0.0, 1.0, 0.0, 1.0]))
    assert curve.scores == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert curve.probabilities == (0.0, 0.0, 0.5, 0.5, 1.0)
    assert curve.probability(np.array([0.0, 0.25, 0.35, 0.45, 9.0])) == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_isotonic_pools_equal_scores_and_falling_ones():
    curve = fit_isotonic(np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]))
    assert (curve.scores, curve.probabilities) == ((1.0, 2.0), (0.5, 1.0))
    falling = fit_isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert set(falling.probabilities) == {0.5}


@given(arrays(np.float64, st.integers(1, 25), elements=st.floats(0, 1)), st.integers(0, 1000))
def test_isotonic_rises_keeps_the_mean_and_is_least_squares(scores, seed):
    random = np.random.default_rng(seed)
    rights = random.integers(0, 2, size=len(scores)).astype(float)
    curve = fit_isotonic(scores, rights)
    fitted = curve.probability(scores)
    assert np.all(np.diff(curve.probabilities) >= 0)
    assert fitted.mean() == pytest.approx(rights.mean())
    other = np.sort(random.random(len(np.unique(scores))))[np.unique(scores, return_inverse=True)[1]]
    assert np.sum((fitted - rights) ** 2) <= np.sum((other - rights) ** 2) + 1e-9


def test_isotonic_equals_scikit_learn():
    isotonic = pytest.importorskip("sklearn.isotonic")
    random = np.random.default_rng(0)
    scores, rights = np.round(random.random(300), 2), (random.random(300) < 0.5).astype(float)
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, rights)
    probes = np.linspace(-0.1, 1.1, 200)
    assert np.allclose(fit_isotonic(scores, rights).probability(probes), theirs.predict(probes))


def test_a_curve_is_a_readable_document():
    curve = fit_isotonic(np.array(SCORES), np.array([0.0, 0.0, 1.0, 0.0, 1.0]))
    assert IsotonicCurve.from_document(curve.to_document()) == curve


@pytest.mark.parametrize(
    "document", [{}, {"scores": [1], "probabilities": []}, {"scores": [2, 1], "probabilities": [0, 1]}, {"scores": 3}]
)
def test_what_is_no_curve_is_refused(document):
    with pytest.raises(InvalidParameterError):
        IsotonicCurve.from_document(document)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit_temperature(np.zeros((2, 1)), np.array([0, 0])),
        lambda: fit_temperature(np.zeros((1, 2)), np.array([2])),
        lambda: fit_temperature(np.full((1, 2), np.inf), np.array([0])),
        lambda: fit_isotonic(np.array([]), np.array([])),
        lambda: fit_isotonic(np.array([0.5]), np.array([2.0])),
        lambda: fit_isotonic(np.array([np.nan]), np.array([1.0])),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InvalidParameterError):
        call()

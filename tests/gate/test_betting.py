import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.gate.betting import betting_p_value, betting_upper_bound
from halve.gate.exact import exact_upper_bound

differences = arrays(np.float64, st.integers(1, 80), elements=st.floats(-1, 1))
confidences = st.floats(0.51, 0.999)


def plain_p_value(values, margin):
    """The formula of the docstring, one pair at a time."""
    n, capital, most, total, squares = len(values), 1.0, 1.0, 0.0, 1.0
    variance = 1.0
    for seen, value in enumerate(values, start=1):
        cap = 0.9 / (1 - margin) if margin < 1 else math.inf
        capital *= 1 - min(math.sqrt(2 * math.log(20) / (n * variance)), cap) * (value - margin)
        most = max(most, capital)
        total += value
        squares += (value - total / (seen + 1)) ** 2
        variance = squares / (seen + 1)
    return 1 / most


@given(differences, st.floats(-1, 1))
def test_p_value_equals_the_plain_loop(values, margin):
    found = betting_p_value(values, margin=margin)
    assert found == (1.0 if np.mean(values) >= margin else pytest.approx(plain_p_value(values, margin), rel=1e-9))


@given(differences, confidences, st.floats(-1, 1))
def test_p_value_and_bound_agree(values, confidence, margin):
    bound = betting_upper_bound(values, confidence=confidence)
    if abs(bound - margin) > 1e-7:
        assert (betting_p_value(values, margin=margin) <= 1 - confidence) == (bound <= margin)


@given(differences, confidences, confidences)
def test_bound_is_above_the_observed_drop_and_rises_with_confidence(values, one, other):
    low, high = (betting_upper_bound(values, confidence=level) for level in sorted((one, other)))
    assert np.mean(values) <= low + 1e-12
    assert low <= high + 1e-7
    assert high <= 1


@given(differences, st.floats(-1, 1), st.floats(-1, 1))
def test_p_value_falls_as_the_margin_rises(values, one, other):
    first, second = (betting_p_value(values, margin=margin) for margin in sorted((one, other)))
    assert 0 <= second <= first <= 1


def draws(kind, rng, n):
    """Differences with a mean of exactly 0.05, from kind to kind harder: the rare loss is what a bound can miss."""
    if kind == "two beta scores":
        return rng.beta(8, 2, n) - rng.beta(7.5, 2.5, n)
    if kind == "rare total loss":
        return (rng.random(n) < 0.05).astype(np.float64)
    return np.where(rng.random(n) < 0.15, 1.0, -0.1 / 0.85)


@pytest.mark.parametrize("kind", ["two beta scores", "rare total loss", "losses against small gains"])
def test_wrong_claims_are_rejected_no_more_often_than_stated(kind):
    rng = np.random.default_rng(5)
    runs, mean = 2_000, 0.05
    wrong = sum(betting_p_value(draws(kind, rng, 150), margin=mean) <= 0.05 for _ in range(runs))
    assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_bound_shrinks_with_the_examples_and_stays_near_the_exact_one():
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(8):
        values = rng.choice([-1.0, 0.0, 1.0], p=[0.02, 0.96, 0.02], size=2_000)
        losses, gains = int((values > 0).sum()), int((values < 0).sum())
        exact = exact_upper_bound(2_000, losses=losses, gains=gains, confidence=0.95) - values.mean()
        ratios.append((betting_upper_bound(values, confidence=0.95) - values.mean()) / exact)
    assert 1.0 < np.mean(ratios) < 1.6


def test_equal_scores_are_certified_from_347_examples_on():
    assert (
        betting_upper_bound(np.zeros(347), confidence=0.95)
        <= 0.01
        < betting_upper_bound(np.zeros(346), confidence=0.95)
    )


@pytest.mark.parametrize("n", [1, 50])
def test_a_total_loss_is_bounded_by_one(n):
    assert betting_upper_bound(np.ones(n), confidence=0.95) == 1.0


def test_a_single_equal_pair_shows_nothing():
    assert betting_upper_bound(np.zeros(1), confidence=0.95) == 1.0


def test_bad_values_are_named():
    with pytest.raises(InvalidParameterError, match=r"margin must be in \[-1, 1\]. Got -2"):
        betting_p_value(np.zeros(3), margin=-2)
    with pytest.raises(InvalidParameterError, match=r"confidence must be in \(0.5, 0.999\]. Got 1"):
        betting_upper_bound(np.zeros(3), confidence=1)

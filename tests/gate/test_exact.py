import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from halve.errors import InvalidParameterError
from halve.gate.exact import (
    NUISANCE_LEVEL,
    ORDER_DEVIATIONS,
    clopper_pearson,
    exact_p_value,
    exact_upper_bound,
    order_value,
    tail_probability,
)


@st.composite
def outcomes(draw, most=60):
    n = draw(st.integers(1, most))
    losses = draw(st.integers(0, n))
    return n, losses, draw(st.integers(0, n - losses))


def every_outcome(n):
    return np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)])


def masses(n, pairs, *, drop, discordance):
    """Probability of every outcome, straight from the multinomial distribution."""
    cells = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    return multinomial.pmf(np.column_stack([pairs, n - pairs.sum(axis=1)]), n, cells)


# Exact 95 % intervals as R prints them: binom.test(x, n)$conf.int.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.3085),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1.0),
        (10, 100, 0.0490, 0.1762),
    ],
)
def test_clopper_pearson_agrees_with_r(successes, n, low, high):
    found = clopper_pearson(successes, n=n, level=0.05)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


# Wilks 1941: 59, 149 and 299 runs without a failure show 95, 98 and 99 % reliability at 95 % confidence.
@pytest.mark.parametrize(("margin", "n"), [(0.05, 59), (0.02, 149), (0.01, 299)])
def test_no_discordant_pair_needs_as_many_examples_as_wilks_found(margin, n):
    assert exact_p_value(n, losses=0, gains=0, margin=margin) <= 0.05
    assert exact_p_value(n - 1, losses=0, gains=0, margin=margin) > 0.05


@pytest.mark.parametrize(
    ("n", "losses", "gains", "margin"), [(8, 1, 2, 0.2), (12, 0, 3, 0.1), (15, 2, 2, 0.25), (10, 0, 9, 0.0)]
)
def test_p_value_is_the_supremum_found_by_enumeration(n, losses, gains, margin):
    pairs = every_outcome(n)
    stronger = order_value(losses=pairs[:, 0], gains=pairs[:, 1]) <= order_value(losses=losses, gains=gains) + 1e-9
    rates = clopper_pearson(losses + gains, n=n, level=NUISANCE_LEVEL)
    grid = np.linspace(max(rates.low, margin), rates.high, 400)
    supremum = max(masses(n, pairs[stronger], drop=margin, discordance=rate).sum() for rate in grid)
    p_value = exact_p_value(n, losses=losses, gains=gains, margin=margin)
    assert supremum + NUISANCE_LEVEL <= p_value + 1e-12
    assert p_value <= 1.05 * supremum + 2 * NUISANCE_LEVEL


@pytest.mark.parametrize(("n", "confidence"), [(6, 0.95), (10, 0.9), (17, 0.95)])
def test_bound_covers_every_drop_by_enumeration(n, confidence):
    pairs = every_outcome(n)
    bounds = np.array([exact_upper_bound(n, losses=int(b), gains=int(c), confidence=confidence) for b, c in pairs])
    for discordance in (0.02, 0.1, 0.3, 0.6, 1.0):
        for drop in np.linspace(-discordance, discordance, 9):
            missed = masses(n, pairs[bounds < drop], drop=drop, discordance=discordance)
            assert np.nansum(missed) <= 1 - confidence + 1e-9, (discordance, drop)


@given(
    n=st.integers(1, 3_000),
    at_most=st.floats(-60, 120),
    loss_rate=st.just(0.0) | st.floats(1e-9, 0.5),
    gain_rate=st.just(0.0) | st.floats(1e-9, 0.5),
)
def test_fast_tail_equals_the_plain_sum(n, at_most, loss_rate, gain_rate):
    rate = loss_rate + gain_rate
    k = np.arange(n + 1)
    most = np.floor((k + np.floor(at_most - ORDER_DEVIATIONS * np.sqrt(k + 1.0) + 1e-9)) / 2)
    plain = np.sum(binom.pmf(k, n, rate) * binom.cdf(most, k, loss_rate / rate if rate else 0.0))
    fast = tail_probability(n, at_most=at_most, loss_rate=np.array([loss_rate]), gain_rate=np.array([gain_rate]))[0]
    assert plain - 1e-9 <= fast <= plain + 1e-5


@given(outcomes(), st.floats(0.51, 0.999), st.floats(0, 1))
def test_p_value_and_bound_agree(outcome, confidence, margin):
    n, losses, gains = outcome
    bound = exact_upper_bound(n, losses=losses, gains=gains, confidence=confidence)
    p_value = exact_p_value(n, losses=losses, gains=gains, margin=margin)
    if abs(bound - margin) > 1e-7:
        assert (p_value <= 1 - confidence) == (bound <= margin)


@given(outcomes(), st.floats(0.51, 0.999), st.floats(0.51, 0.999))
def test_bound_is_above_the_observed_drop_and_rises_with_confidence(outcome, one, other):
    n, losses, gains = outcome
    bounds = [exact_upper_bound(n, losses=losses, gains=gains, confidence=level) for level in sorted((one, other))]
    assert (losses - gains) / n <= bounds[0] <= bounds[1] + 1e-7
    assert bounds[1] <= 1


@given(outcomes(), st.floats(-1, 1), st.floats(-1, 1))
def test_p_value_falls_as_the_margin_rises(outcome, one, other):
    n, losses, gains = outcome
    low, high = sorted((one, other))
    first, second = (exact_p_value(n, losses=losses, gains=gains, margin=margin) for margin in (low, high))
    assert NUISANCE_LEVEL <= second <= first + 1e-12 <= 1 + 1e-12


@given(outcomes(), st.floats(0.51, 0.999))
def test_one_loss_more_never_lowers_the_bound(outcome, confidence):
    n, losses, gains = outcome
    bound = exact_upper_bound(n, losses=losses, gains=gains, confidence=confidence)
    if losses + gains < n:
        worse = exact_upper_bound(n, losses=losses + 1, gains=gains, confidence=confidence)
        assert worse >= bound - 1e-7


@pytest.mark.parametrize("n", [1, 2, 7, 5_000])
def test_a_total_loss_is_bounded_by_one(n):
    assert exact_upper_bound(n, losses=n, gains=0, confidence=0.95) == 1.0


def test_one_equal_pair_shows_what_one_pair_can():
    # P(no loss in one pair) = 1 - m, so 95 % confidence gives m = 0.95, and the nuisance level on top.
    assert exact_upper_bound(1, losses=0, gains=0, confidence=0.95) == pytest.approx(0.95 + NUISANCE_LEVEL, abs=1e-6)


def test_a_total_gain_bounds_the_drop_below_zero():
    # Only all gains is as strong: ((d - m) / 2)^n with d = 1 reaches alpha at m = 1 - 2 alpha^(1/n).
    bound = exact_upper_bound(20, losses=0, gains=20, confidence=0.95)
    assert bound == pytest.approx(1 - 2 * (0.05 - NUISANCE_LEVEL) ** (1 / 20), abs=5e-3)
    assert bound < -0.7


def test_large_samples_near_the_normal_bound():
    n, losses, gains = 20_000, 1_000, 1_000
    normal = 1.6449 * math.sqrt((losses + gains) / n / n)
    assert normal <= exact_upper_bound(n, losses=losses, gains=gains, confidence=0.95) <= 1.02 * normal


def test_a_margin_that_the_discordance_rules_out_is_rejected_at_the_nuisance_level():
    assert exact_p_value(5_000, losses=3, gains=1, margin=0.5) == NUISANCE_LEVEL


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: exact_p_value(0, losses=0, gains=0, margin=0.1), r"n must be at least 1 pair. Got 0"),
        (lambda: exact_p_value(5, losses=4, gains=2, margin=0.1), r"together at most 5. Got \(4, 2\)"),
        (lambda: exact_p_value(5, losses=-1, gains=2, margin=0.1), r"at least 0 .* Got \(-1, 2\)"),
        (lambda: exact_p_value(5, losses=1, gains=2, margin=1.5), r"margin must be in \[-1, 1\]. Got 1.5"),
        (lambda: exact_p_value(5, losses=1, gains=2, margin=math.nan), r"margin must be in \[-1, 1\]. Got nan"),
        (
            lambda: exact_upper_bound(5, losses=1, gains=2, confidence=0.5),
            r"confidence must be in \(0.5, 0.999\]. Got 0.5",
        ),
        (lambda: exact_upper_bound(5, losses=1, gains=2, confidence=0.9999), r"Got 0.9999"),
    ],
)
def test_bad_values_are_named(call, match):
    with pytest.raises(InvalidParameterError, match=match):
        call()

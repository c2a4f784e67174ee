import math

import numpy as np
import pytest

from halve.core import Objective
from halve.errors import InvalidParameterError, TooFewExamplesError
from halve.gate import examples_needed, minimum_detectable_drop, power_to_certify, require_enough_examples
from halve.gate.betting import betting_p_value
from halve.gate.exact import exact_p_value


def certified_share(n, *, discordance, drop, margin, confidence, runs=2_000):
    """How often the real test certifies, by simulation; equal counts are tested once."""
    rng = np.random.default_rng(11)
    cells = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    outcomes, times = np.unique(rng.multinomial(n, cells, size=runs), axis=0, return_counts=True)
    passed = [exact_p_value(n, losses=int(b), gains=int(c), margin=margin) <= 1 - confidence for b, c, _ in outcomes]
    return float(np.sum(times[passed]) / runs)


@pytest.mark.parametrize(
    ("n", "discordance", "drop", "margin", "confidence"),
    [
        (400, 0.04, 0.0, 0.03, 0.95),
        (400, 0.06, 0.03, 0.03, 0.9),
        (1_000, 0.02, 0.005, 0.02, 0.99),
        (60, 0.3, -0.1, 0.1, 0.95),
    ],
)
def test_power_agrees_with_simulation(n, discordance, drop, margin, confidence):
    setting = {"discordance": discordance, "drop": drop, "margin": margin, "confidence": confidence}
    simulated, stated = certified_share(n, **setting), power_to_certify(n, **setting)
    error = 3 * math.sqrt(max(stated * (1 - stated), 0.01) / 2_000)
    assert simulated >= stated - error
    assert simulated <= stated + error + 0.04  # critical value of one discordance rate: a little cautious


def test_power_at_the_margin_is_at_most_alpha():
    for discordance in (0.02, 0.05, 0.3):
        assert power_to_certify(500, discordance=discordance, drop=0.02, margin=0.02, confidence=0.95) <= 0.05


def test_power_stated_for_the_number_of_examples_is_reached():
    n = examples_needed(0.04, confidence=0.95, discordance=0.1)
    normal = (1.644854 + 0.841621) ** 2 * 0.1 / 0.04**2
    assert normal <= n <= 1.2 * normal
    assert certified_share(n, discordance=0.1, drop=0.0, margin=0.04, confidence=0.95) >= 0.8 - 3 * 0.009


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.037, 0.2])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_smallest_certifiable_number_is_exact(margin, confidence):
    n = examples_needed(margin, confidence=confidence)
    p_values = [exact_p_value(size, losses=0, gains=0, margin=margin) for size in (n - 1, n)]
    assert p_values[1] <= 1 - confidence < p_values[0]
    # Nothing can do better than (1 - margin)^n: that many losses can hide behind n equal pairs.
    assert n >= math.log(1 - confidence) / math.log(1 - margin)


def test_smallest_certifiable_number_by_betting_is_exact():
    n = examples_needed(0.02, confidence=0.95, is_binary=False)
    p_values = [betting_p_value(np.zeros(size), margin=0.02) for size in (n - 1, n)]
    assert p_values[1] <= 0.05 < p_values[0]


def test_betting_needs_more_examples_than_the_exact_test():
    for discordance in (0.0, 0.1):
        binary, other = (
            examples_needed(0.02, confidence=0.95, discordance=discordance, is_binary=kind) for kind in (True, False)
        )
        assert binary < other


def test_a_drop_near_the_margin_needs_more_examples():
    needs = [examples_needed(0.02, confidence=0.95, discordance=0.05, drop=drop) for drop in (-0.01, 0.0, 0.01, 0.015)]
    assert needs == sorted(set(needs))


def test_minimum_detectable_drop_of_a_worked_example():
    # z = 1.6449 + 0.8416; 2.4865 sqrt(0.02 / 5000) = 0.00497; without discordant pairs 2.4865^2 / 5000.
    assert minimum_detectable_drop(5_000, discordance=0.02, confidence=0.95) == pytest.approx(0.004973, abs=1e-6)
    assert minimum_detectable_drop(5_000, discordance=0.0, confidence=0.95) == pytest.approx(0.0012365, abs=1e-7)
    assert minimum_detectable_drop(1, discordance=1.0, confidence=0.95) == 1.0


@pytest.mark.parametrize(("n", "discordance"), [(2_000, 0.04), (5_000, 0.02)])
def test_the_minimum_detectable_drop_is_detected_as_often_as_stated(n, discordance):
    drop = minimum_detectable_drop(n, discordance=discordance, confidence=0.95)
    rng = np.random.default_rng(4)
    losses, gains = (discordance + drop) / 2, (discordance - drop) / 2
    counts = rng.multinomial(n, [losses, gains, 1 - discordance], size=4_000)
    z = (counts[:, 0] - counts[:, 1]) / np.sqrt(counts[:, 0] + counts[:, 1])
    assert np.mean(z > 1.6449) == pytest.approx(0.8, abs=0.03)


def test_the_minimum_detectable_drop_falls_with_n_and_rises_with_discordance():
    by_n = [minimum_detectable_drop(n, discordance=0.03, confidence=0.95) for n in (50, 1_000, 2_500, 10_000)]
    assert by_n == sorted(by_n, reverse=True)
    by_rate = [minimum_detectable_drop(1_000, discordance=rate, confidence=0.95) for rate in (0.0, 0.01, 0.1, 1.0)]
    assert by_rate == sorted(by_rate)


def test_enough_examples_pass_and_too_few_are_told_how_many():
    objective = Objective(quality_drop_at_most=0.01, confidence=0.95)
    need = examples_needed(0.01, confidence=0.95)
    require_enough_examples(need, objective)
    with pytest.raises(
        TooFewExamplesError, match=rf"at least {need} .* 1 points at 95 % confidence. Got 12\."
    ) as caught:
        require_enough_examples(12, objective)
    assert (caught.value.have, caught.value.need) == (12, need)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: examples_needed(0.0, confidence=0.95),
            r"margin must be in \(0, 1\) to be proven by examples. Got 0.0",
        ),
        (lambda: examples_needed(0.1, confidence=0.3), r"confidence must be in \(0.5, 0.999\]. Got 0.3"),
        (lambda: examples_needed(0.1, confidence=0.9, drop=0.1), r"drop must be below the margin, 0.1. Got 0.1"),
        (
            lambda: examples_needed(1e-9, confidence=0.9),
            r"margin must be provable with 100 million examples. Got 1e-09",
        ),
        (
            lambda: power_to_certify(10, discordance=0.1, drop=0.2, margin=0.1, confidence=0.9),
            r"discordance must be in \[\|drop\|, 1\] = \[0.2, 1\]. Got 0.1",
        ),
        (
            lambda: require_enough_examples(10, Objective(quality_drop_at_most=0.0)),
            r"objective.quality_drop_at_most must be above 0 to be proven by examples. Got 0.0. Allow a small drop",
        ),
    ],
)
def test_bad_values_are_named(call, match):
    with pytest.raises(InvalidParameterError, match=match):
        call()

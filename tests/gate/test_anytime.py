import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.gate.anytime import BETS, STARTS_EVERY, ShadowLoss, log_capital

PROMISE, PROPENSITY = 0.03, 0.2


def watched(**changes):
    arguments = {"loss_at_most": PROMISE, "confidence": 0.95, "least_propensity": PROPENSITY}
    return ShadowLoss(**(arguments | changes))


def plain_evidence(results, *, promise, propensity, least_loss=-1.0):
    """The formula of the docstring, start by start and request by request."""
    bets = [bet / (promise - least_loss / propensity) for bet in BETS]
    starts = range(0, len(results), STARTS_EVERY)
    total = 1 / (len(starts) + 1)
    for number, start in enumerate(starts, start=1):
        weight = 1 / (number * (number + 1))
        for bet in bets:
            capital = 1.0
            for loss, skipped in results[start:]:
                capital *= (1 - bet * promise) ** skipped * (1 + bet * (loss / propensity - promise))
            total += weight * capital / len(bets)
    return total


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.integers(0, 5)), max_size=8))
def test_evidence_equals_the_plain_loop(results):
    monitor = watched()
    for loss, skipped in results:
        monitor.observe(loss, propensity=PROPENSITY, skipped=skipped)
    plain = plain_evidence(results, promise=PROMISE, propensity=PROPENSITY)
    assert monitor.log_evidence == pytest.approx(math.log(plain), abs=1e-9)


def test_evidence_of_several_gamblers_equals_the_plain_loop():
    random, monitor = np.random.default_rng(8), watched()
    results = [(float(lost), 2) for lost in random.random(2 * STARTS_EVERY + 30) < 0.05]
    for loss, skipped in results:
        monitor.observe(loss, propensity=PROPENSITY, skipped=skipped)
    plain = plain_evidence(results, promise=PROMISE, propensity=PROPENSITY)
    assert monitor.log_evidence == pytest.approx(math.log(plain), abs=1e-9)


def test_the_estimate_weights_losses_by_their_propensity():
    monitor = watched()
    monitor.observe(1.0, propensity=0.2, skipped=3)  # 5
    monitor.observe(-1.0, propensity=0.5, skipped=5)  # -2
    assert (monitor.requests, monitor.shadows) == (10, 2)
    assert monitor.mean == pytest.approx(0.3)


def test_capital_of_one_value_by_hand():
    # 1 + c (1 - 0.5) / 0.5 = 1 + c, averaged over the bets.
    found = log_capital(np.array([1.0]), mean=0.5, least=0.0)
    assert found[0] == pytest.approx(math.log(1 + BETS.mean()))


def streams(random, *, count, length, loss, propensity):
    """Weighted losses of shadowed requests among unshadowed zeros, at a mean of `loss` per request."""
    shadowed = random.random((count, length)) < propensity
    lost = random.random((count, length)) < loss
    return np.where(shadowed & lost, 1 / propensity, 0.0)


def test_capital_against_a_true_claim_ever_reaches_20_in_at_most_1_of_20_streams():
    values = streams(np.random.default_rng(0), count=1000, length=1500, loss=PROMISE, propensity=PROPENSITY)
    least = -1 / PROPENSITY
    broken = sum(log_capital(row, mean=PROMISE, least=least).max() >= math.log(20) for row in values)
    assert broken / len(values) <= 0.05


def test_capital_against_a_false_claim_gets_there():
    values = streams(np.random.default_rng(1), count=50, length=6000, loss=4 * PROMISE, propensity=PROPENSITY)
    assert all(log_capital(row, mean=PROMISE, least=-1 / PROPENSITY).max() >= math.log(20) for row in values)


def fed(monitor, random, *, shadows, loss):
    """Feed shadow results at the propensity of the test; yield after each one."""
    gaps = random.geometric(PROPENSITY, size=shadows) - 1
    for gap, lost in zip(gaps.tolist(), (random.random(shadows) < loss).tolist(), strict=True):
        monitor.observe(float(lost), propensity=PROPENSITY, skipped=gap)
        yield monitor


def test_bounds_hold_at_every_look():
    misses = 0
    for seed in range(100):
        looks = fed(watched(), np.random.default_rng(seed), shadows=120, loss=PROMISE)
        outside = [
            not monitor.lower_bound <= PROMISE <= monitor.upper_bound
            for number, monitor in enumerate(looks)
            if number % 20 == 19
        ]
        misses += any(outside)
    assert misses <= 10  # two bounds at 95 % each


def test_the_upper_bound_comes_down_and_the_lower_one_goes_up():
    looks = fed(watched(), np.random.default_rng(3), shadows=1500, loss=0.1)
    *_, monitor = looks
    assert 0.05 < monitor.lower_bound < monitor.mean < monitor.upper_bound < 0.2


def test_nothing_is_known_before_the_first_result():
    monitor = watched()
    assert (monitor.upper_bound, monitor.lower_bound, monitor.mean, monitor.requests) == (1.0, -1.0, 0.0, 0)
    assert monitor.log_evidence == pytest.approx(0.0)


def test_a_break_after_a_long_good_time_is_seen():
    random, monitor = np.random.default_rng(4), watched()
    for _ in fed(monitor, random, shadows=2000, loss=0.0):
        pass
    assert monitor.log_evidence < math.log(20)
    needed = next(
        number for number, _ in enumerate(fed(monitor, random, shadows=2000, loss=0.15)) if monitor.log_evidence > 3
    )
    assert needed < 300


@pytest.mark.parametrize(
    "changes",
    [{"least_propensity": 0.0}, {"loss_at_most": 1.0}, {"least_loss": 0.1}, {"confidence": 0.4}, {"loss_at_most": -2}],
)
def test_arguments_outside_their_range_are_refused(changes):
    with pytest.raises(InvalidParameterError):
        watched(**changes)


@pytest.mark.parametrize(
    "result",
    [
        {"loss": 2.0, "propensity": 0.5},
        {"loss": float("nan"), "propensity": 0.5},
        {"loss": 0.0, "propensity": 0.1},
        {"loss": 0.0, "propensity": 0.5, "skipped": -1},
    ],
)
def test_results_outside_their_range_are_refused(result):
    with pytest.raises(InvalidParameterError):
        watched().observe(result.pop("loss"), **result)

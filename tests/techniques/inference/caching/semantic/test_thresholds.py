from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.thresholds import (
    GRID,
    NEVER,
    choose_threshold,
    precision_lower_bound,
    precision_recall_curve,
    precision_upper_bound,
)

labelled = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


def test_bounds_are_clopper_and_pearsons():
    assert precision_lower_bound(9, hits=10, confidence=0.95) == pytest.approx(beta.ppf(0.05, 9, 2))
    assert precision_upper_bound(9, hits=10, confidence=0.95) == pytest.approx(beta.ppf(0.95, 10, 1))
    assert precision_lower_bound(0, hits=10, confidence=0.95) == 0
    assert precision_upper_bound(10, hits=10, confidence=0.95) == 1
    assert precision_lower_bound(0, hits=0, confidence=0.95) == 0
    assert precision_upper_bound(0, hits=0, confidence=0.95) == 1
    assert precision_lower_bound(58, hits=58, confidence=0.95) == pytest.approx(0.05 ** (1 / 58))
    low = precision_lower_bound(np.arange(101), hits=100, confidence=0.9)
    assert binom.sf(np.arange(1, 101) - 1, 100, low[1:]) == pytest.approx(np.full(100, 0.1))


def test_a_curve_by_hand():
    curve = precision_recall_curve([0.9, 0.8, 0.8, 0.3, 0.0], [True, True, False, True, False], grid=(0.85, 0.8, 0.1))
    assert [(p.true_hits, p.false_hits, p.missed, p.right_misses) for p in curve] == [
        (1, 0, 2, 2), (2, 1, 1, 1), (3, 1, 0, 1),
    ]  # fmt: skip
    assert [p.threshold for p in curve] == [0.85, 0.8, 0.1]
    assert curve[1].precision == pytest.approx(2 / 3)
    assert curve[1].recall == pytest.approx(2 / 3)
    assert curve[1].hit_rate == pytest.approx(3 / 5)
    assert curve[0].precision_low == pytest.approx(0.05)
    nothing = precision_recall_curve([0.1], [False], grid=(0.9,))[0]
    assert (nothing.precision, nothing.recall, nothing.hit_rate, nothing.precision_low) == (1, 0, 0, 0)


@given(labelled)
def test_every_look_up_is_in_one_cell_and_more_are_served_as_the_threshold_falls(rows):
    scores, right = (list(column) for column in zip(*rows, strict=True))
    curve = precision_recall_curve(scores, right)
    assert [point.threshold for point in curve] == list(GRID)
    for point in curve:
        assert point.true_hits + point.false_hits + point.missed + point.right_misses == len(rows)
        assert point.hits == sum(score >= point.threshold for score in scores)
        assert point.precision_low <= point.precision <= point.precision_high or point.hits == 0
    assert all(before.hits <= after.hits for before, after in pairwise(curve))


def traffic(rng, n, *, sharpness=1.5, offset=-1.0, overconfidence=1.0):
    """Look-ups whose log-odds are normal; what the scorer says is stretched by its overconfidence."""
    logits = rng.normal(offset, 1.5, n) * sharpness
    right = rng.random(n) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-logits * overconfidence)), right


def true_precision(threshold, **kind):
    scores, right = traffic(np.random.default_rng(99), 400_000, **kind)
    served = scores >= threshold
    return right[served].mean() if served.any() else 1.0


@pytest.mark.parametrize("n", [300, 2_000])
@pytest.mark.parametrize("overconfidence", [0.6, 1.0, 2.5])
def test_the_promise_is_broken_in_one_calibration_of_twenty_at_most(n, overconfidence):
    rng, runs, target, broken = np.random.default_rng(n), 400, 0.85, 0
    kind = {"overconfidence": overconfidence}
    scores, right = traffic(np.random.default_rng(99), 400_000, **kind)
    order = np.argsort(-scores)
    running = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    falling = -scores[order]
    for _ in range(runs):
        choice = choose_threshold(*traffic(rng, n, **kind), precision_at_least=target)
        if choice.point is not None:
            served = int(np.searchsorted(falling, -choice.threshold, side="right"))
            broken += running[served - 1] < target
    assert broken <= binom.ppf(0.999, runs, 0.05)


def test_with_precision_just_below_the_target_everywhere_a_proof_is_as_rare_as_stated():
    rng, runs, proved = np.random.default_rng(5), 1_000, 0
    for _ in range(runs):
        scores = rng.random(500)
        proved += choose_threshold(scores, rng.random(500) < 0.8999, precision_at_least=0.9).point is not None
    assert proved <= binom.ppf(0.999, runs, 0.05)


def test_good_traffic_is_enabled_and_close_to_the_best_threshold():
    rng = np.random.default_rng(0)
    choice = choose_threshold(*traffic(rng, 20_000), precision_at_least=0.85)
    assert choice.point is not None
    assert 0.85 < true_precision(choice.threshold) < 0.88
    assert choice.point.precision_low >= 0.85
    assert "95% confidence" in choice.reason
    assert choice.look_ups == 20_000


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_higher_target_gives_a_threshold_at_least_as_high(seed):
    scores, right = traffic(np.random.default_rng(seed), 30_000)
    targets = (0.6, 0.7, 0.8, 0.85, 0.9)
    thresholds = [choose_threshold(scores, right, precision_at_least=target).threshold for target in targets]
    assert thresholds == sorted(thresholds)


@given(labelled, st.floats(0, 1), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_one_threshold_that_passes_a_target_passes_every_lower_one(rows, threshold, one, other):
    scores, right = (list(column) for column in zip(*rows, strict=True))
    low, high = sorted((one, other))
    strict, loose = (
        choose_threshold(scores, right, precision_at_least=target, grid=(threshold,)) for target in (high, low)
    )
    assert loose.point is not None or strict.point is None


@given(labelled, st.floats(0.05, 0.95))
def test_what_is_chosen_passes_by_itself(rows, target):
    scores, right = (list(column) for column in zip(*rows, strict=True))
    choice = choose_threshold(scores, right, precision_at_least=target)
    if choice.point is None:
        assert choice.threshold == NEVER
        assert choice.reason.startswith("do not enable")
    else:
        assert choice.point.precision_low >= target
        assert choice.threshold in GRID


def test_do_not_enable_says_why():
    few = choose_threshold([0.99] * 10, [True] * 10, precision_at_least=0.85)
    assert few.point is None
    assert few.reason == "do not enable: even 19 hits, all right, are needed for a proof; there are fewer"
    wrong = choose_threshold([0.99] * 200, [True, False] * 100, precision_at_least=0.85)
    assert wrong.threshold == NEVER
    assert "100 of 200 hits are right, which proves 0.44" in wrong.reason


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"probabilities": []}, "of one length, at least 1"),
        ({"probabilities": [0.5, 0.5]}, "of one length, at least 1"),
        ({"probabilities": [1.5]}, r"probabilities must be in \[0, 1\]"),
        ({"probabilities": [float("nan")]}, r"probabilities must be in \[0, 1\]"),
        ({"confidence": 1.0}, r"confidence must be in \(0.5, 1\). Got 1.0"),
        ({"precision_at_least": 1.0}, r"precision_at_least must be in \(0, 1\). Got 1.0"),
        ({"grid": (0.1, 0.2)}, "grid must be falling thresholds"),
        ({"grid": ()}, "grid must be falling thresholds"),
    ],
)
def test_bad_input(change, match):
    given = {"probabilities": [0.5], "right": [True], "precision_at_least": 0.9} | change
    with pytest.raises(InvalidParameterError, match=match):
        choose_threshold(given.pop("probabilities"), given.pop("right"), **given)

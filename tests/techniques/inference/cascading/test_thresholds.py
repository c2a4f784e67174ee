from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading import (
    LEAST_GAP,
    NEVER,
    RULES,
    accepted,
    choose_threshold,
    confidence,
    threshold_curve,
    threshold_ladder,
)
from halve.techniques.inference.cascading.thresholds import SHARES_OF_THE_BUDGET

rules = st.sampled_from(RULES)


@st.composite
def recorded(draw):
    n, classes = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    weights = draw(arrays(np.float64, (n, classes), elements=st.floats(0, 1))) + 1e-3
    scores = arrays(np.float64, n, elements=st.sampled_from([0.0, 0.5, 1.0]))
    return {
        "cheap_probabilities": (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        "cheap_scores": draw(scores),
        "dear_scores": draw(scores),
    }


def synthetic(n=3_000, seed=0):
    """A calibrated cheap model of ten classes beside a dear one that is right 97 % of the time."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (n, 10))
    logits[:, 0] += rng.gamma(3, 1.5, n)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = rng.random(n) < probabilities.max(axis=1)
    return {
        "cheap_probabilities": probabilities.astype(np.float32),
        "cheap_scores": right.astype(np.float64),
        "dear_scores": (rng.random(n) < 0.97).astype(np.float64),
    }


def mean_drop(baseline, candidate):
    return float(np.mean(baseline - candidate))


@given(recorded(), rules)
def test_every_point_is_what_its_threshold_does(tables, rule):
    for point in threshold_curve(**tables, rule=rule):
        stands = accepted(tables["cheap_probabilities"], rule=rule, threshold=point.threshold)
        scores = np.where(stands, tables["cheap_scores"], tables["dear_scores"])
        assert point.accept_share == np.mean(stands)
        assert point.cascade_quality == pytest.approx(np.mean(scores), abs=1e-12)
        assert point.quality_drop == pytest.approx(mean_drop(tables["dear_scores"], scores), abs=1e-12)


@given(recorded(), rules)
def test_share_falls_as_the_threshold_rises_from_all_to_none(tables, rule):
    curve = threshold_curve(**tables, rule=rule)
    assert (curve[0].threshold, curve[0].accept_share) == (0.0, 1.0)
    assert (curve[-1].threshold, curve[-1].accept_share) == (NEVER, 0.0)
    assert all(one.threshold < two.threshold and one.accept_share > two.accept_share for one, two in pairwise(curve))


@given(recorded(), rules)
def test_rounding_noise_flips_no_decision(tables, rule):
    sure = confidence(tables["cheap_probabilities"], rule)
    for point in threshold_curve(**tables, rule=rule)[1:]:
        assert np.min(np.abs(sure - point.threshold)) >= LEAST_GAP / 4 * 0.99


def test_the_curve_is_thinned_but_keeps_its_shape():
    tables = synthetic()
    for rule in RULES:
        shares = np.array([point.accept_share for point in threshold_curve(**tables, rule=rule)])
        assert 150 < len(shares) <= 202
        assert np.max(-np.diff(shares)) <= 0.011


def test_thresholds_are_short_decimals_where_there_is_room():
    tables = {
        "cheap_probabilities": np.array([[0.9, 0.1], [0.6, 0.4]], dtype=np.float32),
        "cheap_scores": np.array([1.0, 0.0]),
        "dear_scores": np.array([1.0, 1.0]),
    }
    curve = threshold_curve(**tables, rule="maximum_probability")
    assert [point.threshold for point in curve] == [0.0, 0.8, NEVER]
    assert [point.quality_drop for point in curve] == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("probabilities", [np.ones((5, 1)), np.full((5, 4), 0.25), np.tile([0.7, 0.3], (5, 1))])
@pytest.mark.parametrize("rule", RULES)
def test_a_model_that_is_always_equally_sure_leaves_all_or_nothing(probabilities, rule):
    curve = threshold_curve(
        cheap_probabilities=probabilities, cheap_scores=np.zeros(5), dear_scores=np.ones(5), rule=rule
    )
    assert [(point.threshold, point.accept_share, point.quality_drop) for point in curve] == [
        (0.0, 1.0, 1.0),
        (NEVER, 0.0, 0.0),
    ]


@given(recorded(), st.floats(-0.2, 0.5))
def test_the_choice_is_the_largest_share_that_passes(tables, allowed):
    chosen = choose_threshold(**tables, quality_drop_at_most=allowed, upper_bound=mean_drop)
    every = [point for rule in RULES for point in threshold_curve(**tables, rule=rule) if point.accept_share > 0]
    # The bound sees scores, the curve cumulative sums: at the very limit they may differ in the last digit.
    passing = [point.accept_share for point in every if point.quality_drop <= allowed - 1e-12]
    if chosen is None:
        assert not passing
    else:
        assert chosen.quality_drop <= allowed + 1e-12
        assert chosen.accept_share >= max(passing, default=0.0)


def test_the_bound_decides_not_the_observed_drop():
    tables = synthetic()
    cautious = choose_threshold(
        **tables, quality_drop_at_most=0.02, upper_bound=lambda one, two: mean_drop(one, two) + 0.01
    )
    bold = choose_threshold(**tables, quality_drop_at_most=0.02, upper_bound=mean_drop)
    assert 0 < cautious.accept_share < bold.accept_share
    assert cautious.quality_drop <= 0.01


def test_the_bound_is_asked_only_where_the_observed_drop_allows_it():
    asked = []

    def upper_bound(one, two):
        asked.append(mean_drop(one, two))
        return asked[-1] + 0.02

    assert choose_threshold(**synthetic(), quality_drop_at_most=0.021, upper_bound=upper_bound) is not None
    assert 1 < len(asked) < 200
    assert max(asked) <= 0.021 + 1e-9


def test_a_bound_that_never_passes_chooses_nothing():
    assert choose_threshold(**synthetic(200), quality_drop_at_most=0.01, upper_bound=lambda *_: 1.0) is None


@pytest.mark.parametrize(
    ("cheap", "dear", "match"),
    [
        (np.ones(2), np.ones(3), r"as many as rows of probabilities, at least 1. Got \(2, 3, 3\)"),
        (np.ones(3), np.array([1.0, np.nan, 0.0]), "must be finite"),
        (np.array([1.0, np.inf, 0.0]), np.ones(3), "must be finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(cheap, dear, match):
    with pytest.raises(InvalidParameterError, match=match):
        threshold_curve(cheap_probabilities=np.full((3, 2), 0.5), cheap_scores=cheap, dear_scores=dear, rule="margin")


def test_no_examples_are_refused():
    with pytest.raises(InvalidParameterError, match=r"at least 1. Got \(0, 0, 0\)"):
        threshold_curve(
            cheap_probabilities=np.zeros((0, 2)), cheap_scores=np.zeros(0), dear_scores=np.zeros(0), rule="margin"
        )


def test_a_ladder_spends_more_and_more_of_the_promise():
    """Each rung is what `choose_threshold` gives for its share of the budget; the last for all of it."""
    tables = synthetic()
    rungs = list(threshold_ladder(**tables, quality_drop_at_most=0.02, upper_bound=mean_drop))
    chosen = [
        choose_threshold(**tables, quality_drop_at_most=0.02 * share, upper_bound=mean_drop)
        for share in SHARES_OF_THE_BUDGET
    ]
    assert rungs == list(dict.fromkeys(chosen))
    assert len(rungs) >= 3
    assert all(one.accept_share < two.accept_share for one, two in pairwise(rungs))
    assert rungs[0].quality_drop <= 0.15 * 0.02 + 1e-12


@given(recorded(), st.floats(0, 0.5))
def test_rungs_are_different_and_keep_the_promise(tables, allowed):
    rungs = list(threshold_ladder(**tables, quality_drop_at_most=allowed, upper_bound=mean_drop))
    assert len({(rung.rule, rung.threshold) for rung in rungs}) == len(rungs) <= len(SHARES_OF_THE_BUDGET)
    assert all(rung.quality_drop <= allowed + 1e-12 and rung.accept_share > 0 for rung in rungs)
    assert all(one.accept_share <= two.accept_share for one, two in pairwise(rungs))


def test_a_ladder_without_a_setting_that_passes_is_empty():
    assert list(threshold_ladder(**synthetic(200), quality_drop_at_most=0.01, upper_bound=lambda *_: 1.0)) == []

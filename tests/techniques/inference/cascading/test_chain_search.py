from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chain_search import (
    CHANCES,
    candidates,
    chain_points,
    cheapest,
    frontier,
)
from halve.techniques.inference.cascading.chains import Chain, ChainTable, run_chain, single
from halve.techniques.inference.cascading.thresholds import NEVER


def drawn(seed, *, stages, requests, prior=False, grain=0.01):
    """Answerers that get better and dearer; the surer, the likelier right."""
    random = np.random.default_rng(seed)
    hardness = random.random(requests)
    skill = np.linspace(0.6, 0.95, stages)[:, None]
    chance = np.clip(skill + 0.5 * (0.5 - hardness), 0, 1)
    scores = (random.random((stages, requests)) < chance).astype(float)
    sure = np.clip(chance[:-1] + random.normal(size=(stages - 1, requests)) * 0.1, 0, 1)
    usd = (4.0 ** np.arange(stages))[:, None] * (0.5 + random.random((stages, requests)))
    return ChainTable(
        names=tuple("abcde"[:stages]),
        scores=scores,
        usd=usd,
        sure=np.round(np.round(sure / grain) * grain, 9),
        prior=np.round(1 - hardness, 2) if prior else None,
    )


def all_settings(table, *, with_skips=False):
    """Every setting that makes a difference, one by one."""
    levels = [sorted({0.0, NEVER, *(row + 0.005)}) for row in table.sure]
    skips = sorted({0.0, *(table.prior + 0.005)}) if with_skips else [0.0]
    for thresholds in product(*levels):
        for skip in skips:
            yield Chain(names=table.names, thresholds=tuple(map(float, thresholds)), skip_below=float(skip))


def plain_cheapest(table, strong, drop, **options):
    found = []
    for chain in all_settings(table, **options):
        run = run_chain(table, chain)
        if np.mean(strong - run.scores) <= drop + 1e-12:
            found.append(run.usd.mean())
    return min(found)


@given(st.integers(0, 2000), st.floats(0, 0.2))
@settings(max_examples=50)
def test_two_stages_are_exact(seed, drop):
    table = drawn(seed, stages=2, requests=25)
    found = cheapest([chain_points(table, strong_scores=table.scores[1])], quality_drop_at_most=drop)
    assert found.usd_per_request == pytest.approx(plain_cheapest(table, table.scores[1], drop))


@given(st.integers(0, 2000), st.integers(1, 4), st.booleans())
@settings(max_examples=50)
def test_points_are_what_a_run_gives(seed, stages, prior):
    table = drawn(seed, stages=stages, requests=30, prior=prior)
    strong = table.scores[-1]
    points = chain_points(table, strong_scores=strong)
    for place in range(0, len(points.usd), 7):
        run = run_chain(table, points.chain(place))
        assert run.usd.mean() == pytest.approx(points.usd[place])
        assert np.mean(strong - run.scores) == pytest.approx(points.drop[place], abs=1e-12)
        assert np.mean((strong - run.scores) ** 2) == pytest.approx(points.squares[place], abs=1e-12)


@pytest.mark.parametrize("drop", [0.02, 0.05, 0.1])
def test_three_stages_come_near_the_best_of_all(drop):
    ratios = []
    for seed in range(8):
        table = drawn(seed, stages=3, requests=400, grain=0.05)
        found = cheapest([chain_points(table, strong_scores=table.scores[2])], quality_drop_at_most=drop)
        best = plain_cheapest(table, table.scores[2], drop)
        assert found.usd_per_request >= best - 1e-9
        ratios.append(found.usd_per_request / best)
    assert np.mean(ratios) < 1.02  # a grid


def test_a_prior_saves_calls_that_would_be_in_vain():
    table = drawn(3, stages=3, requests=300, prior=True)
    blind = ChainTable(names=table.names, scores=table.scores, usd=table.usd, sure=table.sure)
    with_prior, without = (
        cheapest([chain_points(given, strong_scores=table.scores[2])], quality_drop_at_most=0.01)
        for given in (table, blind)
    )
    assert with_prior.chain.skip_below > 0
    assert with_prior.usd_per_request < without.usd_per_request


def test_the_choice_of_answerers_is_part_of_the_search():
    table = drawn(0, stages=3, requests=200)
    strong = table.scores[2]
    alone = [single(name, scores=table.scores[row], usd=table.usd[row]) for row, name in enumerate(table.names)]
    points = [chain_points(given, strong_scores=strong) for given in (*alone, table)]
    assert cheapest(points, quality_drop_at_most=1.0).chain.names == ("a",)
    assert cheapest(points[:3], quality_drop_at_most=0.0).chain.names == ("c",)
    assert cheapest(points[:1], quality_drop_at_most=0.0) is None


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_the_frontier_falls_in_cost_and_rises_in_drop(seed):
    tables = [drawn(seed, stages=stages, requests=40) for stages in (2, 3)]
    points = [chain_points(table, strong_scores=table.scores[-1]) for table in tables]
    kept = frontier(points)
    assert np.all(np.diff([point.usd_per_request for point in kept]) < 0)
    assert np.all(np.diff([point.quality_drop for point in kept]) > 0)
    for drop in (0.0, 0.05, 0.3):
        best = min(point.usd_per_request for point in kept if point.quality_drop <= drop)
        assert best == pytest.approx(cheapest(points, quality_drop_at_most=drop).usd_per_request)


def test_candidates_get_bolder_and_cheaper():
    table = drawn(1, stages=3, requests=500)
    points = [chain_points(table, strong_scores=table.scores[2])]
    found = candidates(points, quality_drop_at_most=0.05, certify_requests=500, confidence=0.95)
    assert 2 <= len(found) <= len(CHANCES)
    assert np.all(np.diff([point.usd_per_request for point in found]) < 0)
    more = candidates(points, quality_drop_at_most=0.05, certify_requests=50_000, confidence=0.95)
    assert more[0].usd_per_request < found[0].usd_per_request
    assert candidates(points, quality_drop_at_most=-1, certify_requests=500, confidence=0.95) == ()


def test_expected_losses_take_the_place_of_recorded_ones():
    table = drawn(2, stages=3, requests=60)
    strong, expected = table.scores[2], np.array([[0.3], [0.1], [0.0]]) * np.ones((1, 60))
    found = chain_points(table, strong_scores=strong, expected_losses=expected)
    for place in range(0, len(found.usd), 97):
        run = run_chain(table, found.chain(place))
        assert found.drop[place] == pytest.approx(np.mean(expected[run.stage, np.arange(60)]))
        assert found.squares[place] == pytest.approx(np.mean((strong - run.scores) ** 2))


def test_four_stages_come_near_three_of_them():
    # The fourth is of no use: dear and no surer than chance. The search must do about as well as without it.
    table = drawn(4, stages=3, requests=300, grain=0.05)
    random, strong = np.random.default_rng(0), table.scores[2]
    four = ChainTable(
        names=("a", "b", "x", "c"),
        scores=np.insert(table.scores, 2, 0.0, axis=0),
        usd=np.insert(table.usd, 2, 0.01, axis=0),
        sure=np.vstack([table.sure, random.random((1, 300))]),
    )
    three, longer = (
        cheapest([chain_points(given, strong_scores=strong)], quality_drop_at_most=0.03) for given in (table, four)
    )
    assert longer.usd_per_request <= 1.15 * three.usd_per_request


def test_a_candidate_without_a_loss_is_not_taken_for_certain():
    table = single("same", scores=np.ones(50), usd=np.ones(50))
    points = [chain_points(table, strong_scores=np.ones(50))]
    (found,) = candidates(points, quality_drop_at_most=0.2, certify_requests=50, confidence=0.95)
    assert found.deviation == pytest.approx(np.sqrt(2 / 52))
    likely = candidates(points, quality_drop_at_most=0.01, certify_requests=50, confidence=0.95, chances=(0.5,))
    assert likely == ()


@pytest.mark.parametrize(
    "call",
    [
        lambda: chain_points(drawn(0, stages=2, requests=5), strong_scores=np.ones(4)),
        lambda: chain_points(
            drawn(0, stages=2, requests=5), strong_scores=np.ones(5), expected_losses=np.zeros((1, 5))
        ),
        lambda: cheapest([], quality_drop_at_most=0.1),
        lambda: candidates([], quality_drop_at_most=0.1, certify_requests=0, confidence=0.95),
        lambda: candidates([], quality_drop_at_most=0.1, certify_requests=1, confidence=0.2),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InvalidParameterError):
        call()

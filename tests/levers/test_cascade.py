from dataclasses import replace

import numpy as np
import pytest

from halve.core import Acceptance, Objective, Prediction
from halve.levers.cascade import Cascade, accepted_mask, serve_acceptance
from halve.techniques.inference.cascading import SHARES_OF_THE_BUDGET


@pytest.mark.parametrize("budget", [0.015, 0.03, 0.1])
@pytest.mark.parametrize("wrong", [0.05, 0.3])
def test_thresholds_respect_the_budget(table_bench, baseline_of, tmp_path, budget, wrong):
    objective = Objective(quality_drop_at_most=budget, latency_p99_seconds=0.1)
    bench = table_bench(tmp_path, objective=objective, wrong={"small": wrong})
    changes = list(Cascade().propose(baseline_of(bench), bench))
    assert 1 <= len(changes) <= len(SHARES_OF_THE_BUDGET)
    for change in changes:
        assert bench.drop_upper_bound(np.asarray(bench.measure(change.after).scores)) <= budget


def test_the_cheap_model_goes_first_and_cautious_proposals_come_first(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, requests_per_second=800.0)
    start = baseline_of(bench)
    changes = list(Cascade().propose(start, bench))
    shares = [bench.measure(change.after).stage_share["small"] for change in changes]
    assert shares == sorted(shares)
    assert shares[0] > 0.5, "the cheap model is unsure only where it is wrong, which is one time in ten"
    for change in changes:
        assert [stage.model for stage in change.after.stages] == ["small", "full"]
        assert change.after.stages[0].accept is not None
        assert change.after.deployment("full") == start.deployment("full")
        assert bench.usd_per_hour(bench.fit(change.after)) < bench.usd_per_hour(bench.fit(start))


def test_a_cascade_that_is_there_gets_new_thresholds(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    cautious, *_, boldest = Cascade().propose(baseline_of(bench), bench)
    again = list(Cascade().propose(cautious.after, bench))
    assert [change.after.stages for change in again][-1] == boldest.after.stages
    assert all(len(change.after.models) == 2 for change in again)


def test_a_cache_stays_in_front(table_bench, baseline_of, tmp_path):
    from halve.core import Stage

    bench = table_bench(tmp_path)
    start = baseline_of(bench)
    cached = replace(start, stages=(Stage(kind="exact_cache"), *start.stages))
    for change in Cascade().propose(cached, bench):
        assert [stage.kind for stage in change.after.stages] == ["exact_cache", "model", "model"]


def test_without_a_cheaper_answerer_nothing_is_proposed(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, with_small=False)
    assert list(Cascade().propose(baseline_of(bench), bench)) == []
    reason = Cascade().nothing(baseline_of(bench), bench)
    assert reason == "no cheaper answerer was brought, and none was made yet"


def test_an_answerer_that_is_no_faster_than_the_last_model_is_not_proposed(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    slow = bench.service_curve(bench.brought[0], threads=1)
    stack = baseline_of(bench)
    bench.brought = [*bench.brought, bench.baseline]
    assert slow.median_seconds[0] < bench.service_curve(bench.baseline, threads=1).median_seconds[0]
    assert {change.after.models[0].name for change in Cascade().propose(stack, bench)} == {"small"}


def test_a_hopeless_answerer_is_not_proposed(table_bench, baseline_of, tmp_path):
    # 600 examples cannot even show that nothing is lost within 0.1 points.
    bench = table_bench(tmp_path, objective=Objective(quality_drop_at_most=0.001), wrong={"full": 0.0})
    assert list(Cascade().propose(baseline_of(bench), bench)) == []
    reason = Cascade().nothing(baseline_of(bench), bench)
    assert reason == "no threshold keeps the drop below 0.001 on the search split"


@pytest.mark.parametrize("rule", ["maximum_probability", "margin", "entropy"])
def test_what_is_served_is_what_was_composed(table_bench, tmp_path, rule):
    bench = table_bench(tmp_path)
    outcomes = bench.outcomes(bench.brought[0])
    accept = Acceptance(rule=rule, threshold=0.7 if rule == "maximum_probability" else 0.4)
    prediction = Prediction(answers=outcomes.answers, probabilities=outcomes.probabilities)
    mask = accepted_mask(outcomes.probabilities, accept)
    np.testing.assert_array_equal(serve_acceptance(accept)(prediction), mask)
    assert 0 < mask.sum() < len(mask)


def test_answers_without_probabilities_never_stand():
    prediction = Prediction(answers=np.array([1, 2]))
    accept = Acceptance(rule="margin", threshold=0.0)
    assert serve_acceptance(accept)(prediction).tolist() == [False, False]

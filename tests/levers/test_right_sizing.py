import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Objective
from halve.levers.right_sizing import RightSizing
from halve.testing.scripted import Script, ScriptedBench, scripted_stack


@pytest.mark.parametrize("promise", [0.016, 0.03, 0.1, 1.0])
@pytest.mark.parametrize("rate", [20.0, 200.0])
def test_no_fleet_that_breaks_the_promise_is_proposed(table_bench, baseline_of, tmp_path, promise, rate):
    objective = Objective(quality_drop_at_most=0.03, latency_p99_seconds=promise)
    bench = table_bench(tmp_path, objective=objective, requests_per_second=rate)
    proposals = list(RightSizing().propose(baseline_of(bench), bench))
    assert proposals
    for change in proposals:
        assert bench.measure(change.after).latency.p99_seconds <= promise


def test_one_fleet_per_instance_type_cheapest_first_and_cheaper_than_the_peak_fleet(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    start = baseline_of(bench, replicas=12)
    proposals = list(RightSizing().propose(start, bench))
    costs = [bench.usd_per_hour(change.after) for change in proposals]
    assert costs == sorted(costs)
    assert costs[0] < bench.usd_per_hour(start)
    kinds = [{deployment.instance_type for deployment in change.after.deployments} for change in proposals]
    assert sorted(kinds, key=str) == [{"c6a.large"}, {"c6a.xlarge"}]
    for change in proposals:
        assert change.before == start
        assert change.after.gateway.instance_type == change.after.deployments[0].instance_type
        assert change.after.stages == start.stages


def test_more_threads_are_used_where_one_is_too_slow(table_bench, baseline_of, tmp_path):
    # One thread answers in 12 ms at best, two in 7.5 ms.
    objective = Objective(latency_p99_seconds=0.012)
    bench = table_bench(tmp_path, objective=objective, requests_per_second=5.0)
    if 2 not in bench.threads_options():
        pytest.skip("this host has one core: there is no second thread to try")
    for change in RightSizing().propose(baseline_of(bench), bench):
        assert change.after.deployments[0].threads >= 2


def test_an_impossible_promise_proposes_nothing_and_says_why(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, objective=Objective(latency_p99_seconds=0.001))
    lever, stack = RightSizing(), baseline_of(bench)
    assert list(lever.propose(stack, bench)) == []
    assert lever.nothing(stack, bench) == (
        "no other fleet of the allowed instance types (c6a.large, c6a.xlarge) keeps the latency promise"
    )


def test_without_instance_types_there_is_nothing_to_propose():
    bench = ScriptedBench(script={1: Script(usd=1.0)})
    assert list(RightSizing().propose(scripted_stack(1), bench)) == []
    assert "(none)" in RightSizing().nothing(scripted_stack(1), bench)


@given(st.integers(1, 9))
def test_the_best_fleet_does_not_depend_on_the_fleet_before(table_bench, baseline_of, tmp_path_factory, replicas):
    bench = table_bench(tmp_path_factory.getbasetemp() / "right_sizing_shared")
    fleets = [
        {change.after for change in RightSizing().propose(baseline_of(bench, replicas=count), bench)}
        for count in (replicas, 12)
    ]
    assert fleets[0] <= fleets[1]
    assert np.isfinite([bench.usd_per_hour(stack) for stack in fleets[1]]).all()

from dataclasses import replace

from halve.core import BatchPolicy, Objective
from halve.levers.batching import Batching


def test_batches_make_the_fleet_cheaper_within_the_promise(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    start = bench.fit(baseline_of(bench))
    (change,) = Batching().propose(start, bench)
    assert change.before == start
    assert bench.usd_per_hour(change.after) < bench.usd_per_hour(start)
    assert bench.measure(change.after).latency.p99_seconds <= bench.workload.objective.latency_p99_seconds
    policy = change.after.deployments[0].batch
    assert 1 < policy.max_batch_size <= 32
    assert f"full up to {policy.max_batch_size}" in change.description
    assert bench.fit(change.after) == change.after, "the proposal was fitted before its price was compared"


def test_batches_that_gain_nothing_are_not_proposed(table_bench, baseline_of, tmp_path):
    # All of the time is per request: a batch of 8 takes 8 times as long.
    bench = table_bench(tmp_path, seconds={"full": (0.0, 0.012)})
    start = bench.fit(baseline_of(bench))
    assert list(Batching().propose(start, bench)) == []
    reason = Batching().nothing(start, bench)
    assert reason == "no batch policy needs fewer instances (throughput of a full batch: full 1.00x at 32)"


def test_a_tight_promise_keeps_batches_small(table_bench, baseline_of, tmp_path):
    objective = Objective(latency_p99_seconds=0.04)
    bench = table_bench(tmp_path, objective=objective)
    for change in Batching().propose(bench.fit(baseline_of(bench)), bench):
        assert bench.measure(change.after).latency.p99_seconds <= 0.04
        assert change.after.deployments[0].batch.max_batch_size < 32


def test_a_tuned_stack_is_left_alone(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    (change,) = Batching().propose(bench.fit(baseline_of(bench)), bench)
    assert list(Batching().propose(change.after, bench)) == []


def test_an_impossible_promise_proposes_nothing(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, objective=Objective(latency_p99_seconds=0.001))
    assert list(Batching().propose(baseline_of(bench), bench)) == []


def test_waiting_is_named_in_the_description(table_bench, baseline_of, tmp_path):
    stack = baseline_of(table_bench(tmp_path))
    waits = replace(stack.deployments[0], batch=BatchPolicy(max_batch_size=4, max_wait_seconds=0.0025))
    assert Batching._describe(stack.with_deployment(waits)) == "batches: full up to 4 after 2.5 ms"

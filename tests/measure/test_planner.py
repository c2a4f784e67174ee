from dataclasses import replace

import numpy as np
import pytest

from halve.core import BatchPolicy, Objective, Stage
from halve.measure.planner import (
    GATEWAY,
    PLANNED_SLOWDOWN,
    price,
    run_simulation,
    stage_shares,
    stations,
)


def test_stations_mirror_the_stack(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench, replicas=4)
    batched = replace(stack.deployments[0], batch=BatchPolicy(max_batch_size=8, max_wait_seconds=0.002))
    stack = stack.with_deployment(batched).with_replicas(gateway=2, models={})
    front, model = stations(stack, curves=bench.curves(stack))
    assert (front.name, front.replicas, front.batch) == (GATEWAY, 2, BatchPolicy())
    assert (model.name, model.replicas, model.batch) == ("full", 4, batched.batch)
    curve = bench.service_curve(bench.baseline, threads=1)
    np.testing.assert_allclose(model.seconds_by_batch, curve.seconds_by_batch())
    assert model.noise_ratios is not None
    assert all(station.noise_ratios is None for station in stations(stack, curves=bench.curves(stack), noisy=False))


def test_a_cache_is_no_station(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench)
    cached = replace(stack, stages=(Stage(kind="exact_cache"), *stack.stages))
    assert len(stations(cached, curves=bench.curves(cached))) == 2


def test_latency_without_a_queue_is_the_sum_of_the_services(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, requests_per_second=2.0)
    stack = baseline_of(bench, replicas=50)
    traffic = bench.workload.traffic
    result = run_simulation(
        stack,
        traffic=traffic,
        leaving=np.ones(traffic.n_requests, np.int64),
        curves=bench.curves(stack),
        seed=0,
        noisy=False,
    )
    np.testing.assert_allclose(np.median(result.latency_seconds), 0.012 + 0.0003)


@pytest.mark.parametrize("promise", [0.02, 0.05, 0.5])
def test_the_fitted_fleet_keeps_the_promise_and_no_smaller_one_does(table_bench, baseline_of, tmp_path, promise):
    bench = table_bench(tmp_path, objective=Objective(latency_p99_seconds=promise))
    fitted = bench.fit(baseline_of(bench))

    def slowed_p99_seconds(stack):
        traffic, curves = bench.workload.traffic, bench.curves(stack)
        leaving = np.ones(traffic.n_requests, np.int64)
        result = run_simulation(
            stack, traffic=traffic, leaving=leaving, curves=curves, seed=bench.seed, slowdown=PLANNED_SLOWDOWN
        )
        return np.quantile(result.latency_seconds, 0.99)

    assert bench.measure(fitted).latency.p99_seconds < slowed_p99_seconds(fitted) <= promise
    replicas = fitted.deployments[0].replica.replicas
    load = bench.workload.traffic.n_requests * 0.012 * PLANNED_SLOWDOWN / bench.workload.traffic.duration_seconds
    assert replicas >= load, "fewer could not even do the work"
    if replicas - 1 >= load:
        fewer = fitted.with_replicas(gateway=fitted.gateway.replica.replicas, models={"full": replicas - 1})
        assert slowed_p99_seconds(fewer) > promise
    assert bench.fit(fitted) == fitted


def test_nothing_fits_an_impossible_promise(table_bench, baseline_of, tmp_path):
    # One request takes 12.3 ms at best.
    bench = table_bench(tmp_path, objective=Objective(latency_p99_seconds=0.012))
    assert bench.fit(baseline_of(bench)) is None


def test_the_bill_is_instances_times_price_over_the_trace(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench, replicas=3, threads=2)
    bill = price(
        stack,
        catalogue=bench.catalogue,
        curves=bench.curves(stack),
        busy_seconds={GATEWAY: 1.0, "full": 2.0},
        duration_seconds=3600.0,
        n_requests=1000,
    )
    kind = bench.catalogue.instance("c6a.large")
    assert bill.instances == {"c6a.large": 4}
    assert bill.usd_per_hour == pytest.approx(4 * kind.usd_per_hour)
    lines = {line.name: line.usd_per_1k_requests for line in bill.lines}
    assert sum(lines.values()) == pytest.approx(4 * kind.usd_per_hour), "one hour, one thousand requests"
    assert lines["full"] == pytest.approx(2.0 * 2 * kind.usd_per_hour / 2 / 3600), "two busy seconds of two vCPUs"


def test_shares_name_every_stage(table_bench, baseline_of, tmp_path):
    stack = baseline_of(table_bench(tmp_path))
    assert stage_shares(stack, np.array([1, 1, 1, 1])) == {"full": 1.0}
    cached = replace(stack, stages=(Stage(kind="exact_cache"), *stack.stages))
    assert stage_shares(cached, np.array([0, 1, 1, 0])) == {"exact_cache": 0.5, "full": 0.5}

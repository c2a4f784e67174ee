from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.assembly.gateway_profile import serve_command
from halve.core import Acceptance, Deployment, Model, Stage
from halve.core.documents import dump_yaml
from halve.core.progress import Silent
from halve.engines import engine
from halve.errors import ReplayError
from halve.measure.artifacts import adopt_files
from halve.measure.confirm import confirm, residuals_by_exit, with_residuals


def test_residuals_are_pooled_by_the_station_where_requests_left():
    leaving = np.repeat([0, 1], 40)
    measured, simulated = np.where(leaving == 0, 0.002, 0.030), np.where(leaving == 0, 0.001, 0.010)
    pools = residuals_by_exit(measured, simulated, leaving)
    np.testing.assert_allclose(pools[0], np.full(40, 0.001))
    np.testing.assert_allclose(pools[1], np.full(40, 0.020))


def test_rare_stations_borrow_from_all_and_failures_are_left_out():
    leaving = np.array([0] * 40 + [1] * 5)
    measured = np.where(leaving == 0, 0.002, 0.030)
    measured[3] = np.nan
    pools = residuals_by_exit(measured, np.zeros(45), leaving)
    assert len(pools[0]) == 39
    assert len(pools[1]) == 44
    assert np.isfinite(pools[1]).all()


@given(st.integers(0, 1000))
def test_predictions_are_simulations_plus_a_residual_of_their_own_station(seed):
    rng = np.random.default_rng(seed)
    leaving, simulated = rng.integers(0, 3, 50), rng.uniform(0, 1, 50)
    pools = {0: np.array([0.5]), 1: np.array([-9.0])}
    predicted = with_residuals(simulated, leaving, pools, seed=seed)
    np.testing.assert_allclose(predicted[leaving == 0], simulated[leaving == 0] + 0.5)
    assert np.all(predicted[leaving == 1] == 0), "no latency is negative"
    assert set(np.round(predicted[leaving == 2] - simulated[leaving == 2], 6)) <= {0.5, *np.round(-simulated, 6)}
    np.testing.assert_array_equal(predicted, with_residuals(simulated, leaving, pools, seed=seed))


@pytest.fixture
def linear_bench(table_bench, baseline_of, tmp_path):
    """A bench whose `small` model is a real ONNX file, and a cascade of it and the table `full`."""
    from torch import nn

    from halve.techniques.compression.quantization import export_onnx

    bench = table_bench(tmp_path, requests_per_second=40.0)
    folder = tmp_path / "models" / "linear"
    folder.mkdir()
    payloads = np.stack([example.payload for example in bench.workload.search[:8]])
    export_onnx(nn.Linear(2, 3).eval(), {"input": payloads}, folder / "model.onnx")
    linear = Model(name="linear", engine="onnxruntime", files=adopt_files(folder, relative_to=tmp_path))
    bench.engine = engine
    start = baseline_of(bench, replicas=1)
    stack = replace(
        start,
        models=(linear, *start.models),
        stages=(
            Stage(kind="exact_cache"),
            Stage(kind="model", model="linear", accept=Acceptance(rule="margin", threshold=0.9)),
            *start.stages,
        ),
        deployments=(Deployment(model="linear", instance_type="c6a.large"), *start.deployments),
    )
    return bench, stack


def test_a_stack_is_really_served_and_compared(linear_bench):
    bench, stack = linear_bench
    asked = []

    def command(rehearsed, port):
        asked.append(rehearsed)
        path = bench.folder / "rehearsal.yaml"
        path.write_text(dump_yaml(rehearsed))
        return serve_command(path, port=port)

    replay = confirm(stack, bench=bench, seconds=2.0, command=command, progress=Silent())
    assert replay.failed_requests == 0
    assert replay.agreeing_answers_share == 1.0
    assert replay.n_requests == replay.replayed.n_requests > 30
    assert replay.replayed.provenance == "replayed"
    assert replay.predicted.provenance == "simulated"
    assert replay.predicted.scores == replay.replayed.scores == bench.measure(stack, split="certify").scores
    assert replay.latency_p99_seconds.replayed == replay.replayed.latency.p99_seconds > 0
    assert replay.usd_per_1k_requests.replayed == pytest.approx(replay.replayed.usd_per_1k_requests)
    assert set(replay.replayed.utilization) == {"gateway", "linear", "full"}
    assert replay.replayed.stage_share.keys() == {"exact_cache", "linear", "full"}
    assert "replayed the busiest 4 s of 10 s" in replay.notes[0]
    assert [model.name for model in asked[0].models] == ["linear", "full"]


def test_a_server_that_dies_is_reported_with_its_last_words(linear_bench):
    import sys

    bench, stack = linear_bench
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(ReplayError, match=r"the server ended with code 1 before it was ready: no such thing"):
        confirm(stack, bench=bench, seconds=1.0, command=lambda stack, port: command, progress=Silent())

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Deployment, Gateway, IntArray, Model, ReplicaPolicy, ServiceCurve, Stack, Stage, Traffic
from halve.errors import ReplayError
from halve.measure.planner import GATEWAY
from halve.measure.rehearsal import busiest_window, plan_rehearsal


def make_traffic(arrivals: list[float], duration: float) -> Traffic:
    n = len(arrivals)
    return Traffic(
        arrival_seconds=np.array(arrivals), content=np.arange(n), example=np.arange(n), duration_seconds=duration
    )


def even_traffic(rate: float, duration: float) -> Traffic:
    return make_traffic(list(np.arange(int(rate * duration)) / rate), duration)


def make_stack(*, gateway: int, full: int) -> Stack:
    return Stack(
        name="s",
        models=(Model(name="full", engine="recorded"),),
        stages=(Stage(kind="model", model="full"),),
        deployments=(Deployment(model="full", instance_type="c6a.large", replica=ReplicaPolicy(replicas=full)),),
        gateway=Gateway(instance_type="c6a.large", replica=ReplicaPolicy(replicas=gateway)),
    )


def curves(seconds: float) -> dict[str, ServiceCurve]:
    def curve(name: str, value: float) -> ServiceCurve:
        return ServiceCurve(model=name, threads=1, batch_sizes=(1,), samples_seconds=((value,),), peak_memory_bytes=0)

    return {GATEWAY: curve(GATEWAY, 0.0001), "full": curve("full", seconds)}


def all_the_way(traffic: Traffic) -> IntArray:
    return np.ones(traffic.n_requests, dtype=np.int64)


def plan(stack: Stack, traffic: Traffic, *, seconds: float = 0.001, cores: int = 1, window: float = 20.0):  # type: ignore[no-untyped-def]
    return plan_rehearsal(
        stack, traffic=traffic, curves=curves(seconds), leaving=all_the_way, seconds=window, server_cores=cores, seed=0
    )


def test_what_fits_is_not_scaled() -> None:
    found = plan(make_stack(gateway=1, full=1), even_traffic(50, 100), cores=4)
    assert found.thinned_to_one_of == 1
    assert found.stack == make_stack(gateway=1, full=1)
    assert len(found.notes) == 1


def test_trace_and_replicas_are_divided_by_one_number() -> None:
    traffic = even_traffic(90, 100)
    found = plan(make_stack(gateway=1, full=3), traffic)
    assert found.thinned_to_one_of == 3
    assert found.stack == make_stack(gateway=1, full=1)
    assert found.window.n_requests == pytest.approx(90 * 40 / 3, abs=1)
    assert "divided by 3 but never below one replica each (gateway 1 of 1, full 1 of 3)" in found.notes[1]


def test_more_is_thinned_until_the_core_is_idle_enough() -> None:
    found = plan(make_stack(gateway=1, full=1), even_traffic(100, 100), seconds=0.02)
    busy = found.window.mean_requests_per_second * 0.02
    assert busy <= 0.3
    assert found.thinned_to_one_of == 7


def test_a_host_that_is_far_too_small_says_so() -> None:
    with pytest.raises(ReplayError, match="this host cannot rehearse the stack: 1 request in 64"):
        plan(make_stack(gateway=1, full=1), even_traffic(1000, 100), seconds=0.09)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=200), st.floats(1, 400))
def test_a_window_lies_within_the_trace_and_holds_something(arrivals: list[float], seconds: float) -> None:
    traffic = make_traffic(sorted(arrivals), 301.0)
    start, length = busiest_window(traffic, seconds=seconds)
    assert start >= 0
    assert start + length <= 301.0 + 1e-9
    assert traffic.window(start_seconds=start, length_seconds=length).n_requests >= 1


def test_blocks_are_learned_from_and_compared_in_turn() -> None:
    found = plan(make_stack(gateway=1, full=1), even_traffic(10, 100))
    assert found.block_seconds == 5
    assert found.window.duration_seconds == 40
    seconds = found.window.arrival_seconds[found.is_confirming]
    assert set(np.floor(seconds / 5).astype(int)) == {1, 3, 5, 7}
    assert found.is_confirming.mean() == pytest.approx(0.5, abs=0.01)


def test_a_short_window_has_short_blocks() -> None:
    found = plan(make_stack(gateway=1, full=1), even_traffic(50, 4), window=2.0)
    assert found.block_seconds == 1
    assert 0 < found.is_confirming.sum() < found.window.n_requests


def test_the_busiest_window_is_the_busiest() -> None:
    arrivals = [*np.linspace(0, 99, 100), *np.linspace(40, 50, 300)]
    start, length = busiest_window(make_traffic(sorted(arrivals), 100.0), seconds=10.0)
    assert length == 10
    assert 39 <= start <= 41


def test_a_window_with_nothing_to_compare_says_so() -> None:
    with pytest.raises(ReplayError, match=r"the busiest 40 s of the trace must hold requests both .* Got 1\."):
        plan(make_stack(gateway=1, full=1), make_traffic([1.0], 100.0))

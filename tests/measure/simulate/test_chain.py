"""The simulator against queueing theory, its invariants, and what it refuses."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import expon

from halve.core import BatchPolicy
from halve.errors import InvalidParameterError
from halve.measure.simulate import Station, service_ratios, simulate

N = 1_000_000
BLOCKS = 50
EXPONENTIAL = expon.ppf((np.arange(20_000) + 0.5) / 20_000)
"""Ratios at even quantiles: service drawn from them is exponential up to one part in 10,000."""


def one_station(*, replicas=1, seconds=1.0, noise=None, batch=None):
    batch = batch or BatchPolicy()
    curve = np.full(batch.max_batch_size, seconds)
    return Station(name="m", seconds_by_batch=curve, replicas=replicas, batch=batch, noise_ratios=noise)


def run(arrivals, *stations, exits=None, **options):
    exits = np.full(len(arrivals), len(stations) - 1) if exits is None else exits
    return simulate(arrivals, stations=stations, exits=exits, duration_seconds=float(arrivals[-1]) + 1, **options)


def poisson(rate, *, seed, n=N):
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, size=n))


def erlang_c(*, servers, load):
    """Probability of waiting in M/M/c. Source: Kleinrock 1975, Queueing Systems I, section 3.5."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


def assert_mean(values, expected):
    """Batch means: 50 consecutive blocks are nearly independent, so their spread gives the standard error."""
    blocks = values[len(values) // 20 :]  # the queue starts empty
    blocks = blocks[: len(blocks) // BLOCKS * BLOCKS].reshape(BLOCKS, -1).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(BLOCKS)
    assert error < 0.05 * expected, "the run is too short to say anything"
    assert abs(blocks.mean() - expected) < 4 * error


@pytest.mark.parametrize("utilization", [0.3, 0.7, 0.85])
def test_mm1_mean_latency(utilization):
    result = run(poisson(utilization, seed=1), one_station(noise=EXPONENTIAL), seed=2)
    assert_mean(result.latency_seconds, 1 / (1 - utilization))
    assert result.loads[0].utilization == pytest.approx(utilization, rel=0.01)


@pytest.mark.parametrize("utilization", [0.3, 0.7, 0.85])
def test_md1_mean_latency(utilization):
    result = run(poisson(utilization, seed=3), one_station())
    assert_mean(result.latency_seconds, 1 + utilization / (2 * (1 - utilization)))


@pytest.mark.parametrize(("servers", "load"), [(2, 1.4), (5, 4.0), (20, 17.0)])
def test_mmc_mean_latency(servers, load):
    result = run(poisson(load, seed=4), one_station(replicas=servers, noise=EXPONENTIAL), seed=5)
    assert_mean(result.latency_seconds, 1 + erlang_c(servers=servers, load=load) / (servers - load))


def test_a_tandem_of_mm1_is_two_mm1():
    """Burke 1956: departures of M/M/1 are Poisson, so the second queue is M/M/1 by itself."""
    stations = [one_station(noise=EXPONENTIAL), one_station(seconds=0.5, noise=EXPONENTIAL)]
    result = run(poisson(0.7, seed=6), *stations, seed=7)
    assert_mean(result.latency_seconds, 1 / (1 - 0.7) + 1 / (2 - 0.7))


arrival_lists = st.lists(st.floats(0, 30), min_size=1, max_size=60).map(lambda times: np.array(sorted(times)))
policies = st.builds(BatchPolicy, max_batch_size=st.integers(1, 6), max_wait_seconds=st.floats(0, 3))


@settings(max_examples=100, deadline=None)
@given(arrivals=arrival_lists, batch=policies, replicas=st.integers(1, 5), seconds=st.floats(0.01, 2))
def test_bounds_that_hold_for_every_policy(arrivals, batch, replicas, seconds):
    result = run(arrivals, one_station(replicas=replicas, seconds=seconds, batch=batch))
    load = result.loads[0]
    assert np.all(result.latency_seconds >= seconds - 1e-9)  # never answered before arrival and service
    assert load.n_requests == len(arrivals)  # each exactly once
    assert math.ceil(len(arrivals) / batch.max_batch_size) <= load.n_batches <= len(arrivals)
    assert 1 <= load.mean_batch_size <= batch.max_batch_size
    assert load.busy_seconds == pytest.approx(load.n_batches * seconds)
    assert 0 <= load.utilization <= 1
    answered = np.sort(arrivals + result.latency_seconds)
    for batch_of_answers in np.split(answered, np.flatnonzero(np.diff(answered) > 1e-9) + 1):
        assert len(batch_of_answers) <= batch.max_batch_size * replicas


@settings(max_examples=100, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 1000), min_size=1, max_size=60).map(lambda ticks: np.array(sorted(ticks)) / 64),
    replicas=st.integers(1, 5),
    largest=st.integers(1, 5),
    ticks=st.integers(1, 128),
)
def test_no_replica_idles_while_someone_waits_if_the_policy_never_waits(arrivals, replicas, largest, ticks):
    """Sixty-fourths are exact, so requests that finish together are whole batches: all full but the last."""
    station = one_station(replicas=replicas, seconds=ticks / 64, batch=BatchPolicy(max_batch_size=largest))
    finishes = arrivals + run(arrivals, station).latency_seconds
    starts = finishes - ticks / 64
    for moment in [(arrival + start) / 2 for arrival, start in zip(arrivals, starts, strict=True) if start > arrival]:
        _, served = np.unique(finishes[(starts <= moment) & (finishes > moment)], return_counts=True)
        assert np.sum(np.ceil(served / largest)) == replicas


@settings(max_examples=100, deadline=None)
@given(arrivals=arrival_lists, replicas=st.integers(1, 5), seconds=st.floats(0.01, 5))
def test_more_replicas_never_make_anyone_wait_longer(arrivals, replicas, seconds):
    few = run(arrivals, one_station(replicas=replicas, seconds=seconds))
    more = run(arrivals, one_station(replicas=replicas + 1, seconds=seconds))
    assert np.all(more.latency_seconds <= few.latency_seconds + 1e-9)


@settings(max_examples=100, deadline=None)
@given(arrivals=arrival_lists, batch=policies, replicas=st.integers(1, 4), shift=st.integers(1, 1000))
def test_a_later_start_changes_nothing(arrivals, batch, replicas, shift):
    arrivals = np.round(arrivals * 64) / 64  # so that the shift is exact
    batch = replace(batch, max_wait_seconds=round(batch.max_wait_seconds * 64) / 64)
    station = one_station(replicas=replicas, seconds=0.75, batch=batch)
    now, later = run(arrivals, station), run(arrivals + shift, station)
    np.testing.assert_array_equal(now.latency_seconds, later.latency_seconds)


def test_the_policy_by_hand():
    """Batch of 3 or 1 s: full at 0.2 (three at once), then the oldest waits out its second, then two are left."""
    arrivals = np.array([0.0, 0.1, 0.2, 1.0, 1.5, 5.0, 5.5])
    curve = np.array([1.0, 1.5, 2.0])
    batch = BatchPolicy(max_batch_size=3, max_wait_seconds=1.0)
    result = run(arrivals, Station(name="m", seconds_by_batch=curve, replicas=1, batch=batch))
    # starts 0.2 (busy until 2.2), 2.2 (the replica was busy until then; two wait: until 3.7), 6.0 (until 7.5)
    np.testing.assert_allclose(result.latency_seconds, [2.2, 2.1, 2.0, 2.7, 2.2, 2.5, 2.0])
    load = result.loads[0]
    assert (load.n_requests, load.n_batches) == (7, 3)
    assert load.busy_seconds == pytest.approx(5.0)
    assert load.utilization == pytest.approx(5.0 / 7.5)
    assert load.mean_wait_seconds == pytest.approx((0.2 + 0.1 + 0.0 + 1.2 + 0.7 + 1.0 + 0.5) / 7)


def test_requests_leave_where_they_should():
    arrivals = np.arange(6.0) * 10
    stations = [one_station(seconds=1.0), one_station(seconds=2.0), one_station(seconds=4.0)]
    result = run(arrivals, *stations, exits=np.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_array_equal(result.latency_seconds, [1.0, 3.0, 7.0, 1.0, 3.0, 7.0])
    assert [load.n_requests for load in result.loads] == [6, 4, 2]
    assert [load.name for load in result.loads] == ["m", "m", "m"]


def test_a_station_nobody_visits_is_empty():
    result = run(np.array([0.0, 1.0]), one_station(), one_station(), exits=np.array([0, 0]))
    idle = result.loads[1]
    assert (idle.n_requests, idle.n_batches, idle.busy_seconds, idle.utilization) == (0, 0, 0.0, 0.0)
    assert (idle.mean_batch_size, idle.mean_wait_seconds, idle.wait_p99_seconds) == (0.0, 0.0, 0.0)


def test_overhead_adds_to_latency_only():
    arrivals = poisson(0.8, seed=8, n=20_000)
    samples = np.array([0.1, 0.3])
    bare = run(arrivals, one_station())
    slower = run(arrivals, one_station(), overhead_seconds=samples)
    added = slower.latency_seconds - bare.latency_seconds
    assert set(np.round(added, 6)) == {0.1, 0.3}
    assert added.mean() == pytest.approx(0.2, abs=0.003)
    assert slower.loads == bare.loads


def test_the_seed_decides_every_draw():
    arrivals = poisson(0.8, seed=9, n=5_000)
    station = one_station(noise=np.array([0.5, 1.0, 1.5]))
    first, again = run(arrivals, station, seed=1), run(arrivals, station, seed=1)
    np.testing.assert_array_equal(first.latency_seconds, again.latency_seconds)
    assert not np.array_equal(first.latency_seconds, run(arrivals, station, seed=2).latency_seconds)


def test_stations_draw_from_streams_of_their_own():
    station = one_station(noise=np.arange(1.0, 100.0))
    draws = [service_ratios(station, number=number, count=1_000, seed=3) for number in range(3)]
    assert abs(np.corrcoef(draws)[np.triu_indices(3, k=1)]).max() < 0.15
    # A shorter run sees the start of the same stream: candidates are compared on common random numbers.
    np.testing.assert_array_equal(service_ratios(station, number=0, count=10, seed=3), draws[0][:10])


def test_the_input_is_never_changed_and_may_be_read_only_or_strided():
    arrivals = np.arange(20.0)
    arrivals.flags.writeable = False
    exits = np.zeros(40, dtype=np.int32)[::2]
    result = simulate(arrivals, stations=[one_station()], exits=exits, duration_seconds=20.0)
    strided = simulate(np.repeat(arrivals, 2)[::2], stations=[one_station()], exits=exits, duration_seconds=20.0)
    np.testing.assert_array_equal(result.latency_seconds, strided.latency_seconds)
    np.testing.assert_array_equal(arrivals, np.arange(20.0))


GOOD = {
    "arrival_seconds": np.arange(3.0),
    "stations": (one_station(),),
    "exits": np.zeros(3, dtype=int),
    "duration_seconds": 3.0,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stations": ()}, "stations must be at least 1. Got 0"),
        ({"arrival_seconds": np.array([])}, r"arrival_seconds must be a row of at least 1 number. Got \(0,\)"),
        ({"arrival_seconds": np.array([0.0, math.nan, 1.0])}, "arrival_seconds must be .* Got 'nan at index 1'"),
        ({"arrival_seconds": np.array([math.nan])}, "arrival_seconds must be .* Got 'nan at index 0'"),
        ({"arrival_seconds": np.array([0.0, 1.0, math.inf])}, "arrival_seconds must be .* Got 'inf at index 2'"),
        ({"arrival_seconds": np.array([0.0, 2.0, 1.0])}, "arrival_seconds must be .* Got '1.0 at index 2'"),
        ({"arrival_seconds": np.array([-1.0, 2.0, 3.0])}, "arrival_seconds must be .* Got '-1.0 at index 0'"),
        ({"exits": np.zeros(3)}, "exits must be whole numbers. Got dtype.'float64'.."),
        ({"exits": np.zeros(2, dtype=int)}, r"exits must be one for each arrival, \(3,\). Got \(2,\)"),
        ({"exits": np.array([0, 1, 0])}, r"exits must be in 0..0, the stations. Got 1"),
        ({"exits": np.array([0, 0, -1])}, r"exits must be in 0..0, the stations. Got -1"),
        ({"duration_seconds": 1.5}, "duration_seconds must be .* the last arrival, 2.0. Got 1.5"),
        ({"duration_seconds": math.nan}, "duration_seconds must be .* Got nan"),
        ({"duration_seconds": math.inf}, "duration_seconds must be .* Got inf"),
        ({"arrival_seconds": np.zeros(3), "duration_seconds": 0.0}, "duration_seconds must be positive.* Got 0.0"),
        ({"seed": -1}, "seed must be at least 0. Got -1"),
        ({"overhead_seconds": np.array([])}, r"overhead_seconds must be None or .* Got \(0,\)"),
        ({"overhead_seconds": np.array([math.nan])}, "overhead_seconds must be finite and at least 0. Got nan"),
        ({"overhead_seconds": np.array([0.1, -0.5])}, "overhead_seconds must be finite and at least 0. Got -0.5"),
    ],
)
def test_bad_values_are_named(changed, message):
    values = GOOD | changed
    with pytest.raises(InvalidParameterError, match=message):
        simulate(values.pop("arrival_seconds"), **values)


def test_the_compiler_is_not_loaded_before_it_is_needed():
    script = "import sys, halve.measure.simulate; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

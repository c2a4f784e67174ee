"""The cheapest fleet: keeps its promise, wastes no replica, asks little, and is near the true optimum."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.core import BatchPolicy
from halve.errors import InvalidParameterError
from halve.measure.simulate import Station, simulate
from halve.techniques.infrastructure.right_sizing import Load, fewest_replicas

SERVICE_SECONDS = 1.0


class Fleet:
    """Stations whose wait is scale / (replicas - load), and hopeless below the load."""

    def __init__(self, loads, scales):
        self.loads, self.scales, self.asked = loads, scales, Counter()

    def __call__(self, counts):
        self.asked[counts] += 1
        waits = tuple(
            scale / (count - load) if count > load else 1e3 + load - count
            for count, load, scale in zip(counts, self.loads, self.scales, strict=True)
        )
        return Load(latency_p99_seconds=SERVICE_SECONDS + sum(waits), wait_p99_seconds=waits)


@st.composite
def problems(draw):
    n = draw(st.integers(1, 4))
    numbers = st.lists(st.floats(0.01, 40), min_size=n, max_size=n)
    weights = draw(st.lists(st.integers(1, 8), min_size=n, max_size=n))
    lowest = draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))
    return Fleet(draw(numbers), draw(numbers)), weights, lowest, SERVICE_SECONDS + draw(st.floats(0.05, 10))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_the_promise_is_kept_and_one_replica_less_anywhere_breaks_it(problem):
    fleet, weights, lowest, promise = problem
    counts = fewest_replicas(
        lowest=lowest, vcpus_each=weights, evaluate=fleet, p99_at_most_seconds=promise, most_replicas=256
    )
    assert max(fleet.asked.values()) == 1
    if counts is None:
        assert fleet((256,) * len(lowest)).latency_p99_seconds > promise
        return
    assert fleet(counts).latency_p99_seconds <= promise
    assert all(least <= count <= 256 for least, count in zip(lowest, counts, strict=True))
    for station, least in enumerate(lowest):
        if counts[station] > least:
            fewer = (*counts[:station], counts[station] - 1, *counts[station + 1 :])
            assert fleet(fewer).latency_p99_seconds > promise


def test_the_cost_is_near_the_optimum_of_an_exhaustive_search():
    random = np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        fleet = Fleet(random.uniform(0.1, 8, 3), random.uniform(0.01, 2, 3))
        weights, promise = random.integers(1, 6, 3).tolist(), SERVICE_SECONDS + random.uniform(0.4, 3)
        lowest = [math.ceil(load) for load in fleet.loads]
        counts = fewest_replicas(lowest=lowest, vcpus_each=weights, evaluate=fleet, p99_at_most_seconds=promise)
        cost = np.dot(counts, weights)
        options = product(*(range(least, least + 14) for least in lowest))
        affordable = [option for option in options if np.dot(option, weights) < cost]
        best = min(
            (np.dot(option, weights) for option in affordable if fleet(option).latency_p99_seconds <= promise),
            default=cost,
        )
        ratios.append(cost / best)
    assert np.mean(ratios) < 1.01
    assert np.max(ratios) < 1.10


def test_a_big_fleet_needs_few_evaluations():
    fleet = Fleet([0.3, 150.0, 90.0], [0.01, 1.0, 2.0])
    counts = fewest_replicas(lowest=[1, 1, 1], vcpus_each=[1, 2, 4], evaluate=fleet, p99_at_most_seconds=1.5)
    assert counts is not None
    assert counts[1] > 150
    assert len(fleet.asked) < 100


def test_service_that_is_too_slow_by_itself_is_told_at_once():
    fleet = Fleet([1.0, 1.0], [0.1, 0.1])
    promise = SERVICE_SECONDS * 0.9
    assert fewest_replicas(lowest=[1, 1], vcpus_each=[1, 1], evaluate=fleet, p99_at_most_seconds=promise) is None
    assert len(fleet.asked) == 1


def test_more_than_the_most_is_none_without_asking():
    fleet = Fleet([1.0], [0.1])
    found = fewest_replicas(lowest=[9], vcpus_each=[1], evaluate=fleet, p99_at_most_seconds=2.0, most_replicas=8)
    assert found is None
    assert not fleet.asked


def test_a_cheap_station_makes_up_for_a_dear_one():
    fleet = Fleet([1.0, 1.0], [1.0, 1.0])
    counts = fewest_replicas(lowest=[1, 1], vcpus_each=[1, 100], evaluate=fleet, p99_at_most_seconds=2.2)
    assert counts == (6, 2)  # waits 1/5 + 1/1; the dear station cannot have fewer


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(5, 300), seed=st.integers(0, 99))
def test_it_holds_on_real_simulations(rate, seed):
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.gamma(0.5, 2 / rate, size=2_000))
    exits = np.where(random.random(2_000) < 0.7, 0, 1)
    batch = BatchPolicy(max_batch_size=8, max_wait_seconds=0.01)
    asked = Counter()

    def evaluate(counts):
        asked[counts] += 1
        stations = (
            Station(name="a", seconds_by_batch=np.array([0.01]), replicas=counts[0], batch=BatchPolicy()),
            Station(name="b", seconds_by_batch=0.05 + 0.01 * np.arange(8), replicas=counts[1], batch=batch),
        )
        result = simulate(arrivals, stations=stations, exits=exits, duration_seconds=float(arrivals[-1]))
        return Load(
            latency_p99_seconds=float(np.quantile(result.latency_seconds, 0.99)),
            wait_p99_seconds=tuple(load.wait_p99_seconds for load in result.loads),
        )

    counts = fewest_replicas(lowest=[1, 1], vcpus_each=[1, 2], evaluate=evaluate, p99_at_most_seconds=0.15)
    assert counts is not None
    assert max(asked.values()) == 1
    assert evaluate(counts).latency_p99_seconds <= 0.15
    for fewer in ((counts[0] - 1, counts[1]), (counts[0], counts[1] - 1)):
        assert min(fewer) == 0 or evaluate(fewer).latency_p99_seconds > 0.15


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lowest": []}, r"lowest must be at least 1 .* Got \(\)"),
        ({"lowest": [0, 1]}, r"lowest must be at least 1 .* Got \(0, 1\)"),
        ({"vcpus_each": [1]}, r"vcpus_each must be at least 1 for each of the 2 stations. Got \(1,\)"),
        ({"vcpus_each": [1, 0]}, r"vcpus_each must be .* Got \(1, 0\)"),
        ({"p99_at_most_seconds": math.nan}, "p99_at_most_seconds must be positive and finite. Got nan"),
        ({"p99_at_most_seconds": 0.0}, "p99_at_most_seconds must be positive and finite. Got 0.0"),
        ({"most_replicas": 0}, "most_replicas must be at least 1. Got 0"),
    ],
)
def test_bad_values_are_named(changed, message):
    given_values = {"lowest": [1, 1], "vcpus_each": [1, 1], "p99_at_most_seconds": 2.0, "most_replicas": 8} | changed
    with pytest.raises(InvalidParameterError, match=message):
        fewest_replicas(evaluate=Fleet([1.0, 1.0], [1.0, 1.0]), **given_values)

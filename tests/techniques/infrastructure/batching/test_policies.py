"""Batch policies: only sizes that earn their place, waits within the promise, nothing dominated."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import BatchPolicy
from halve.errors import InvalidParameterError
from halve.measure.simulate import Station, simulate
from halve.techniques.infrastructure.batching import (
    CandidatePolicy,
    candidate_policies,
    capacity_requests_per_second,
)


@st.composite
def curves(draw):
    sizes = sorted(draw(st.sets(st.integers(1, 128), min_size=1, max_size=8)))
    seconds = draw(st.lists(st.floats(1e-4, 1.0), min_size=len(sizes), max_size=len(sizes)))
    return sizes, sorted(seconds) if draw(st.booleans()) else seconds, draw(st.floats(1e-3, 2.0))


@given(curves())
def test_every_policy_fits_and_earns_its_place(curve):
    sizes, seconds, promise = curve
    policies = candidate_policies(batch_sizes=sizes, seconds=seconds, p99_at_most_seconds=promise)
    seconds_of = dict(zip(sizes, seconds, strict=True))
    fitting = [size for size in sizes if seconds_of[size] <= promise]
    assert bool(policies) == bool(fitting)
    for policy in policies:
        assert policy.max_wait_seconds + seconds_of[policy.max_batch_size] <= promise * (1 + 1e-12)
        assert policy.max_batch_size > 1 or policy.max_wait_seconds == 0
    kept = sorted({policy.max_batch_size for policy in policies})
    per_request = [seconds_of[size] / size for size in kept]
    assert all(after <= 0.97 * before * (1 + 1e-12) for before, after in itertools.pairwise(per_request))
    if fitting:
        best = min(seconds_of[size] / size for size in fitting)
        assert per_request[-1] * 0.97 <= best  # at most one threshold is left on the table


@given(curves())
def test_no_policy_is_dominated_or_listed_twice(curve):
    sizes, seconds, promise = curve
    policies = candidate_policies(batch_sizes=sizes, seconds=seconds, p99_at_most_seconds=promise)
    seconds_of = dict(zip(sizes, seconds, strict=True))

    def merits(policy):
        time = seconds_of[policy.max_batch_size]
        return policy.max_batch_size / time, policy.max_wait_seconds, -(policy.max_wait_seconds + time)

    assert len(set(policies)) == len(policies)
    for one in policies:
        for other in policies:
            mine, theirs = merits(one), merits(other)
            assert mine == theirs or any(a > b for a, b in zip(mine, theirs, strict=True))


def test_a_linear_curve_by_hand():
    # s(b) = 10 ms + 2 ms x b: 12, 14, 18, 26, 42 ms; 12, 7, 4.5, 3.25, 2.625 ms per request.
    found = candidate_policies(
        batch_sizes=[1, 2, 4, 8, 16], seconds=[0.012, 0.014, 0.018, 0.026, 0.042], p99_at_most_seconds=0.030
    )
    assert [(policy.max_batch_size, round(policy.max_wait_seconds, 6)) for policy in found] == [
        *[(1, 0.0), (2, 0.0), (2, 0.004), (2, 0.008)],
        *[(4, 0.0), (4, 0.003), (4, 0.006), (8, 0.0), (8, 0.001), (8, 0.002)],
    ]


def test_sizes_that_gain_too_little_are_left_out_until_they_add_up():
    found = candidate_policies(batch_sizes=[1, 2, 4], seconds=[0.1, 0.196, 0.384], p99_at_most_seconds=0.384)
    assert found == (
        CandidatePolicy(max_batch_size=1, max_wait_seconds=0.0),
        CandidatePolicy(max_batch_size=4, max_wait_seconds=0.0),
    )


def test_a_larger_batch_that_takes_no_longer_replaces_the_smaller():
    found = candidate_policies(batch_sizes=[4, 8], seconds=[0.02, 0.02], p99_at_most_seconds=0.1)
    assert {policy.max_batch_size for policy in found} == {8}


def test_nothing_fits():
    assert candidate_policies(batch_sizes=[1, 2], seconds=[0.2, 0.3], p99_at_most_seconds=0.1) == ()


@pytest.mark.parametrize(("share", "is_stable"), [(0.98, True), (1.02, False)])
def test_the_simulator_saturates_at_the_capacity(share, is_stable):
    seconds = 0.010 + 0.002 * np.arange(1, 9)
    capacity = capacity_requests_per_second(batch_size=8, seconds=float(seconds[-1]))
    n = 100_000
    arrivals = np.arange(n) / (share * capacity)
    station = Station(
        name="m", seconds_by_batch=seconds, replicas=1, batch=BatchPolicy(max_batch_size=8, max_wait_seconds=1.0)
    )
    result = simulate(
        arrivals, stations=(station,), exits=np.zeros(n, dtype=np.int64), duration_seconds=float(arrivals[-1])
    )
    assert (result.latency_seconds[-1] < 0.1) == is_stable
    assert result.loads[0].utilization == pytest.approx(min(share, 1.0), rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_sizes": [], "seconds": []}, r"batch_sizes must be rising from at least 1. Got \(\)"),
        ({"batch_sizes": [2, 1]}, r"batch_sizes must be rising from at least 1. Got \(2, 1\)"),
        ({"batch_sizes": [0, 1]}, r"batch_sizes must be rising from at least 1. Got \(0, 1\)"),
        ({"seconds": [0.1]}, "seconds must be one for each of the 2 sizes. Got 1"),
        ({"seconds": [0.1, math.nan]}, "seconds must be positive and finite. Got nan"),
        ({"seconds": [0.0, 0.1]}, "seconds must be positive and finite. Got 0.0"),
        ({"p99_at_most_seconds": math.inf}, "p99_at_most_seconds must be positive and finite. Got inf"),
    ],
)
def test_bad_values_are_named(changed, message):
    values = {"batch_sizes": [1, 2], "seconds": [0.1, 0.15], "p99_at_most_seconds": 1.0} | changed
    with pytest.raises(InvalidParameterError, match=message):
        candidate_policies(**values)


@pytest.mark.parametrize(
    ("size", "seconds", "name"), [(0, 1.0, "batch_size"), (1, 0.0, "seconds"), (1, math.nan, "seconds")]
)
def test_bad_capacity_values_are_named(size, seconds, name):
    with pytest.raises(InvalidParameterError, match=f"{name} must be"):
        capacity_requests_per_second(batch_size=size, seconds=seconds)

"""Offered load and the rule of thumb for static fleets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.infrastructure.right_sizing import offered_load, peak_replicas


def test_offered_load_is_rate_times_seconds():
    assert offered_load(requests_per_second=50.0, seconds_per_request=0.06) == pytest.approx(3.0)
    assert offered_load(requests_per_second=0.0, seconds_per_request=1.0) == 0.0


@pytest.mark.parametrize(
    ("rate", "seconds", "utilization", "replicas"),
    [
        (0.0, 0.1, 0.7, 1),
        (10.0, 0.7, 0.7, 10),  # 7 / 0.7 is a rounding error above 10
        (10.01, 0.7, 0.7, 11),
        (100.0, 0.05, 1.0, 5),
        (100.0, 0.05, 0.5, 10),
    ],
)
def test_peak_replicas(rate, seconds, utilization, replicas):
    found = peak_replicas(peak_requests_per_second=rate, seconds_per_request=seconds, target_utilization=utilization)
    assert found == replicas


@given(rate=st.floats(0, 1e5), seconds=st.floats(1e-6, 10), utilization=st.floats(0.05, 1))
def test_the_peak_stays_at_the_target_and_no_replica_is_spare(rate, seconds, utilization):
    replicas = peak_replicas(peak_requests_per_second=rate, seconds_per_request=seconds, target_utilization=utilization)
    load = offered_load(requests_per_second=rate, seconds_per_request=seconds)
    assert load / replicas <= utilization * (1 + 1e-9)
    assert replicas == 1 or load / (replicas - 1) > utilization * (1 - 1e-9)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_rates_are_named_with_their_value(bad):
    with pytest.raises(InvalidParameterError, match=f"requests_per_second must be finite and at least 0. Got {bad}"):
        offered_load(requests_per_second=bad, seconds_per_request=1.0)
    with pytest.raises(InvalidParameterError, match=f"seconds_per_request must be finite and at least 0. Got {bad}"):
        offered_load(requests_per_second=1.0, seconds_per_request=bad)
    with pytest.raises(InvalidParameterError, match=f"peak_requests_per_second must be finite.* Got {bad}"):
        peak_replicas(peak_requests_per_second=bad, seconds_per_request=1.0, target_utilization=0.5)


@pytest.mark.parametrize("bad", [0.0, 1.01, math.nan])
def test_bad_utilization_is_named_with_its_value(bad):
    with pytest.raises(InvalidParameterError, match=rf"target_utilization must be in \(0, 1\]. Got {bad}"):
        peak_replicas(peak_requests_per_second=1.0, seconds_per_request=1.0, target_utilization=bad)

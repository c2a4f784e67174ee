import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import QUANTILE_LEVELS, Latency, Measurement
from halve.errors import InvalidParameterError
from halve.testing.strategies import measurements


def test_quantiles_of_a_known_row() -> None:
    latency = Latency.of(np.arange(1, 1002, dtype=np.float64))
    assert latency.p50_seconds == 501
    assert latency.p99_seconds == 991
    assert latency.at(1.0) == 1001
    assert latency.mean_seconds == 501


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50))
def test_quantiles_rise(latencies: list[float]) -> None:
    latency = Latency.of(np.array(latencies))
    assert list(latency.quantile_seconds) == sorted(latency.quantile_seconds)
    assert len(latency.quantile_seconds) == len(QUANTILE_LEVELS)
    assert latency.at(1.0) == max(latencies)


def test_no_latency_is_no_summary() -> None:
    with pytest.raises(InvalidParameterError, match=r"latencies_seconds must be at least one\. Got 0"):
        Latency.of(np.array([]))


@given(measurements())
def test_the_ledger_is_the_cost(measurement: Measurement) -> None:
    assert measurement.usd_per_1k_requests == sum(line.usd_per_1k_requests for line in measurement.ledger)
    assert measurement.quality == pytest.approx(np.mean(measurement.scores))

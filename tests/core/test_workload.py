import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Example, Objective, Traffic, TrainingSet, Workload
from halve.errors import InvalidParameterError, WorkloadError


def make_traffic(arrivals: list[float], *, duration: float | None = None) -> Traffic:
    n = len(arrivals)
    return Traffic(
        arrival_seconds=np.array(arrivals, dtype=np.float64),
        content=np.arange(n),
        example=np.arange(n),
        duration_seconds=max(arrivals, default=0) + 1 if duration is None else duration,
        source="test",
    )


def test_rates() -> None:
    traffic = make_traffic([0, 0.1, 0.2, 5.0], duration=10)
    assert traffic.mean_requests_per_second == 0.4
    assert traffic.peak_requests_per_second() == 3
    assert traffic.peak_requests_per_second(window_seconds=10) == 0.4


def test_a_window_starts_at_zero_and_keeps_what_was_asked() -> None:
    window = make_traffic([0, 1, 2, 3, 4]).window(start_seconds=1, length_seconds=2)
    assert window.arrival_seconds.tolist() == [0, 1]
    assert window.content.tolist() == [1, 2]
    assert window.duration_seconds == 2
    with pytest.raises(WorkloadError, match="at least 1 arrival"):
        make_traffic([0, 1]).window(start_seconds=50, length_seconds=1)


def test_one_in_two() -> None:
    traffic = make_traffic([0, 1, 2, 3, 4])
    assert traffic.every(1).source == "test"
    assert traffic.every(2).arrival_seconds.tolist() == [0, 2, 4]
    assert traffic.every(2).duration_seconds == traffic.duration_seconds
    with pytest.raises(InvalidParameterError, match=r"step must be at least 1\. Got 0"):
        traffic.every(0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.integers(1, 7))
def test_shares_of_the_load_add_up(arrivals: list[float], step: int) -> None:
    traffic = make_traffic(sorted(arrivals))
    assert traffic.every(step).n_requests == -(-traffic.n_requests // step)


@pytest.mark.parametrize(
    ("arrivals", "duration", "message"),
    [
        ([], 1.0, "at least 1 arrival. Got 0"),
        ([2.0, 1.0], 3.0, "arrival_seconds must be finite, sorted, from 0"),
        ([-1.0, 1.0], 3.0, "arrival_seconds must be finite"),
        ([0.0, float("nan")], 3.0, "arrival_seconds must be finite"),
        ([0.0, 5.0], 3.0, "duration_seconds must be positive and at least the last arrival, 5.0. Got 3.0"),
        ([0.0], 0.0, "duration_seconds must be positive"),
    ],
)
def test_traffic_that_cannot_be(arrivals: list[float], duration: float, message: str) -> None:
    with pytest.raises((WorkloadError, InvalidParameterError), match=message):
        make_traffic(arrivals, duration=duration)


def test_columns_must_be_equally_long() -> None:
    with pytest.raises(InvalidParameterError, match="content and example must be as long as arrival_seconds, 2"):
        Traffic(arrival_seconds=np.array([0.0, 1.0]), content=np.arange(1), example=np.arange(2), duration_seconds=2.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quality_drop_at_most", -0.1), ("quality_drop_at_most", 1.0), ("quality_drop_at_most", float("nan")),
        ("confidence", 0.5), ("confidence", 1.0), ("latency_p99_seconds", 0.0), ("latency_p99_seconds", float("inf")),
    ],
)  # fmt: skip
def test_promises_have_ranges(field: str, value: float) -> None:
    with pytest.raises(InvalidParameterError, match=f"objective.{field} must be"):
        Objective(**{field: value})


def test_splits_by_name() -> None:
    workload = Workload(
        name="w",
        search=[Example(payload="a", reference=0)],
        certify=[Example(payload="b", reference=1)],
        traffic=make_traffic([0]),
        objective=Objective(),
    )
    assert workload.examples("search")[0].payload == "a"
    assert workload.examples("certify")[0].payload == "b"


def test_a_training_set_is_as_long_as_its_payloads() -> None:
    training = TrainingSet(payloads=["a", "b"], references=np.array([1, -1]), sha256="0")
    assert len(training) == 2
    assert (training.left_out, training.augment, training.epochs) == (0, None, None)
    assert (
        Workload(name="w", search=[], certify=[], traffic=make_traffic([0]), objective=Objective()).training is None
    ), "nothing is trained on what nobody gave"


def test_a_training_set_needs_a_payload() -> None:
    with pytest.raises(WorkloadError, match=r"training must hold at least 1 payload that is no example\. Got 0\."):
        TrainingSet(payloads=[], references=np.array([], np.int64), sha256="0")


@pytest.mark.parametrize(
    ("references", "message"),
    [([0], r"as long as the payloads, 2\. Got 1"), ([0, -2], r"class indices from 0, or -1 for no label\. Got -2")],
)
def test_references_fit_their_payloads(references: list[int], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"training references must be {message}"):
        TrainingSet(payloads=["a", "b"], references=np.array(references), sha256="0")

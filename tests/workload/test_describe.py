import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Repeats, Traffic
from halve.workload import azure_trace, describe


def traffic(
    arrivals: list[float], *, content: list[int] | None = None, duration: float = 0.0, repeats: Repeats = "none"
) -> Traffic:
    numbers = np.array(content if content is not None else range(len(arrivals)), dtype=np.int64)
    return Traffic(
        arrival_seconds=np.array(arrivals, dtype=np.float64),
        content=numbers,
        example=numbers,
        duration_seconds=duration or arrivals[-1],
        repeats=repeats,
        source="by hand",
    )


def test_numbers_by_hand() -> None:
    described = describe(traffic([0.0, 0.0, 0.5, 3.0, 12.0], duration=120.0))
    assert described.n_requests == 5
    assert described.mean_requests_per_second == 5 / 120
    assert described.peak_1s_requests_per_second == 3.0
    assert described.peak_10s_requests_per_second == 0.4
    assert described.peak_60s_requests_per_second == 5 / 60
    assert described.peak_to_mean == 72.0
    assert described.simultaneous_share == 0.2
    gaps = [0.0, 0.5, 2.5, 9.0]
    assert described.gap_squared_variation == pytest.approx(np.var(gaps) / 9.0)


def test_windows_longer_than_the_traffic_are_cut_to_it() -> None:
    described = describe(traffic([0.0, 0.1, 0.2, 0.3], duration=0.5))
    peaks = (
        described.peak_1s_requests_per_second,
        described.peak_10s_requests_per_second,
        described.peak_60s_requests_per_second,
    )
    assert peaks == (8.0, 8.0, 8.0)
    assert described.peak_to_mean == 1.0


@pytest.mark.parametrize("arrivals", [[0.0], [0.0, 3.0], [1.0, 1.0, 1.0]])
def test_too_few_gaps_vary_nothing(arrivals: list[float]) -> None:
    assert describe(traffic(arrivals, duration=5.0)).gap_squared_variation == 0.0


def test_even_gaps_vary_nothing() -> None:
    assert describe(traffic([0.0, 1.0, 2.0, 3.0])).gap_squared_variation == 0.0


@given(content=st.lists(st.integers(0, 6), min_size=2, max_size=40))
def test_repeat_share_counts_what_was_asked_before(content: list[int]) -> None:
    seen: set[int] = set()
    repeated = 0
    for number in content:
        repeated += number in seen
        seen.add(number)
    described = describe(traffic([float(i) for i in range(len(content))], content=content, repeats="observed"))
    assert described.repeat_share == pytest.approx(repeated / len(content))


@pytest.mark.parametrize(
    ("repeats", "sentence"),
    [
        ("none", "No repeats are assumed: nothing says what was asked, so no cache can earn from them."),
        (
            "observed",
            "Repeats are observed: by the log's own column of contents, 50.0 % of the requests ask what an earlier one "
            "asked.",
        ),
        (
            "declared",
            "Repeats are declared, not observed: by the law you stated, 50.0 % of the requests ask what an earlier one "
            "asked; what caches earn rests on it.",
        ),
    ],
)
def test_assumption_in_one_sentence(repeats: Repeats, sentence: str) -> None:
    content = [0, 1, 2, 3] if repeats == "none" else [0, 1, 0, 1]
    assert describe(traffic([0.0, 1.0, 2.0, 3.0], content=content, repeats=repeats)).assumption == sentence


def test_azure_code_is_far_burstier_than_azure_conv() -> None:
    code, conv = describe(azure_trace("azure-code")), describe(azure_trace("azure-conv"))
    assert code.mean_requests_per_second == pytest.approx(2.5667, rel=1e-4)
    assert conv.mean_requests_per_second == pytest.approx(5.5304, rel=1e-4)
    assert (code.peak_1s_requests_per_second, conv.peak_1s_requests_per_second) == (67.0, 16.0)
    assert code.gap_squared_variation > 100 * conv.gap_squared_variation
    assert code.simultaneous_share == pytest.approx(1001 / 8819)

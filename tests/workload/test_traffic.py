from collections import Counter

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from halve.core import Traffic
from halve.errors import InvalidParameterError, WorkloadError
from halve.workload import assign_examples, azure_trace, declare_popularity, describe, multiply, poisson, speed_up, thin


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    """Traffics with simultaneous arrivals, with and without repeats, ending with or after the last arrival."""
    gaps = draw(st.lists(st.sampled_from([0.0, 0.001, 0.5, 7.0]), min_size=1, max_size=30).filter(any))
    arrivals = np.cumsum(np.array(gaps))
    repeats = draw(st.sampled_from(["none", "observed"]))
    if repeats == "none":
        content = np.array(draw(st.permutations(range(len(gaps)))), dtype=np.int64)
    else:
        content = np.array([draw(st.integers(0, 5)) for _ in gaps], dtype=np.int64)
    duration = float(arrivals[-1]) + draw(st.sampled_from([0.0, 3.0]))
    return Traffic(
        arrival_seconds=arrivals,
        content=content,
        example=content,
        duration_seconds=duration,
        repeats=repeats,
        source="log",
    )


def n_repeats(traffic: Traffic) -> int:
    return traffic.n_requests - len(np.unique(traffic.content))


seeds = st.integers(0, 100)


class TestThin:
    @given(traffic=traffics(), share=st.floats(0.3, 0.999), seed=seeds)
    def test_keeps_a_subset_in_order(self, traffic: Traffic, share: float, seed: int) -> None:
        try:
            thinned = thin(traffic, share, seed=seed)
        except WorkloadError:
            reject()  # nothing was left of a short traffic
        rows = list(zip(traffic.arrival_seconds, traffic.content, traffic.example, strict=True))
        kept = list(zip(thinned.arrival_seconds, thinned.content, thinned.example, strict=True))
        assert not Counter(kept) - Counter(rows)
        assert thinned.duration_seconds == traffic.duration_seconds
        assert thinned.repeats == traffic.repeats
        assert thinned.source == f"log, thinned to {share:g} at random"

    def test_share_is_kept_on_average(self) -> None:
        n = thin(azure_trace("azure-conv"), 0.25, seed=0).n_requests
        assert n / 19_366 == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 19_366) ** 0.5)

    def test_a_smaller_share_keeps_a_subset_of_a_larger(self) -> None:
        few, many = (set(thin(azure_trace("azure-conv"), share, seed=4).content.tolist()) for share in (0.1, 0.3))
        assert few < many

    def test_everything_is_the_same_traffic(self) -> None:
        traffic = azure_trace("azure-code")
        assert thin(traffic, 1.0, seed=0) is traffic

    @pytest.mark.parametrize("share", [0.0, 1.1, -1.0, float("nan")])
    def test_share_out_of_range(self, share: float) -> None:
        with pytest.raises(InvalidParameterError, match=rf"traffic\.thin must be in \(0, 1\]\. Got {share}"):
            thin(azure_trace("azure-code"), share, seed=0)

    def test_nothing_left(self) -> None:
        with pytest.raises(
            WorkloadError, match=r"traffic\.thin must be large enough to keep 1 arrival of 8819\. Got 1e-09"
        ):
            thin(azure_trace("azure-code"), 1e-9, seed=0)


class TestMultiply:
    @given(traffic=traffics(), times=st.integers(1, 5), seed=seeds)
    def test_each_arrival_becomes_so_many_within_its_gap(self, traffic: Traffic, times: int, seed: int) -> None:
        many = multiply(traffic, times, seed=seed)
        assert many.n_requests == times * traffic.n_requests
        assert np.all(np.diff(many.arrival_seconds) >= 0)
        assert many.arrival_seconds[-1] <= many.duration_seconds
        assert not Counter(traffic.arrival_seconds.tolist()) - Counter(many.arrival_seconds.tolist())
        for low, high in zip(traffic.arrival_seconds, traffic.arrival_seconds[1:], strict=False):
            if low < high:
                here = np.sum((many.arrival_seconds >= low) & (many.arrival_seconds <= high))
                assert here >= times - 1 + np.sum(traffic.arrival_seconds == high)

    @given(traffic=traffics(), times=st.integers(1, 5), seed=seeds)
    def test_copies_make_no_repeats(self, traffic: Traffic, times: int, seed: int) -> None:
        many = multiply(traffic, times, seed=seed)
        assert n_repeats(many) == n_repeats(traffic)
        assert many.repeats == traffic.repeats

    @given(traffic=traffics(), times=st.integers(2, 4), seed=seeds)
    def test_examples_are_asked_so_many_times_as_often(self, traffic: Traffic, times: int, seed: int) -> None:
        many = Counter(multiply(traffic, times, seed=seed).example.tolist())
        assert many == {example: times * n for example, n in Counter(traffic.example.tolist()).items()}

    def test_duration_stays_unless_the_last_arrival_needs_a_gap(self) -> None:
        drawn = poisson(10.0, duration_seconds=100.0, seed=0)
        assert multiply(drawn, 3, seed=0).duration_seconds == 100.0
        trace = azure_trace("azure-code")
        assert multiply(trace, 3, seed=0).duration_seconds == pytest.approx(trace.duration_seconds * (1 + 1 / 8819))

    def test_bursts_stay_bursts(self) -> None:
        trace = azure_trace("azure-code")
        many = describe(multiply(trace, 10, seed=0))
        assert many.mean_requests_per_second == pytest.approx(10 * trace.mean_requests_per_second, rel=1e-3)
        assert many.peak_10s_requests_per_second == pytest.approx(327, rel=0.1)
        assert many.source.endswith("each arrival made into 10 (copies repeat nothing)")

    def test_once_is_the_same_traffic(self) -> None:
        traffic = azure_trace("azure-code")
        assert multiply(traffic, 1, seed=0) is traffic

    def test_less_than_once_is_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match=r"traffic\.multiply must be at least 1\. Got 0"):
            multiply(azure_trace("azure-code"), 0, seed=0)


class TestSpeedUp:
    @given(traffic=traffics(), factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
    def test_rates_scale_and_nothing_else_changes(self, traffic: Traffic, factor: float) -> None:
        fast = speed_up(traffic, factor)
        assert fast.mean_requests_per_second == pytest.approx(factor * traffic.mean_requests_per_second)
        assert np.array_equal(fast.arrival_seconds * factor, traffic.arrival_seconds)
        assert np.array_equal(fast.content, traffic.content)
        assert np.array_equal(fast.example, traffic.example)
        assert describe(fast).gap_squared_variation == pytest.approx(describe(traffic).gap_squared_variation)
        assert fast.source == f"log, {factor:g} times as fast"

    def test_once_is_the_same_traffic(self) -> None:
        traffic = azure_trace("azure-code")
        assert speed_up(traffic, 1.0) is traffic

    @pytest.mark.parametrize("factor", [0.0, -2.0, float("nan"), float("inf")])
    def test_factor_out_of_range(self, factor: float) -> None:
        with pytest.raises(
            InvalidParameterError, match=rf"traffic\.speed_up must be positive and finite\. Got {factor}"
        ):
            speed_up(azure_trace("azure-code"), factor)


class TestDeclarePopularity:
    def test_counts_follow_the_law(self) -> None:
        traffic = declare_popularity(
            poisson(1000.0, duration_seconds=100.0, seed=0), exponent=1.0, n_contents=50, seed=0
        )
        counts = np.bincount(traffic.content, minlength=50)
        expected = traffic.n_requests / np.arange(1, 51) / np.sum(1 / np.arange(1, 51))
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
        assert traffic.repeats == "declared"
        assert traffic.source.endswith("repeats by a Zipf law of exponent 1 over 50 contents")

    def test_exponent_zero_is_uniform(self) -> None:
        traffic = declare_popularity(azure_trace("azure-conv"), exponent=0.0, n_contents=10, seed=0)
        expected = 19_366 / 10
        assert np.all(np.abs(np.bincount(traffic.content) - expected) < 5 * np.sqrt(expected))

    def test_a_steep_law_asks_one_thing(self) -> None:
        traffic = declare_popularity(azure_trace("azure-code"), exponent=1000.0, n_contents=10, seed=0)
        assert set(traffic.content.tolist()) == {0}

    def test_as_many_contents_as_arrivals_unless_told(self) -> None:
        traffic = declare_popularity(azure_trace("azure-code"), exponent=0.5, seed=0)
        assert traffic.content.max() < 8819
        assert traffic.source.endswith("over 8819 contents")

    @given(exponent=st.floats(0, 5), n=st.integers(1, 40), seed=seeds)
    def test_contents_are_in_range_and_arrivals_stay(self, exponent: float, n: int, seed: int) -> None:
        before = poisson(20.0, duration_seconds=3.0, seed=0)
        after = declare_popularity(before, exponent=exponent, n_contents=n, seed=seed)
        assert set(after.content.tolist()) <= set(range(n))
        assert np.array_equal(after.arrival_seconds, before.arrival_seconds)

    @pytest.mark.parametrize("exponent", [-0.1, float("nan"), float("inf")])
    def test_exponent_out_of_range(self, exponent: float) -> None:
        with pytest.raises(
            InvalidParameterError, match=rf"popularity_exponent must be finite and at least 0\. Got {exponent}"
        ):
            declare_popularity(azure_trace("azure-code"), exponent=exponent, seed=0)

    def test_no_contents(self) -> None:
        with pytest.raises(InvalidParameterError, match=r"n_contents must be at least 1\. Got 0"):
            declare_popularity(azure_trace("azure-code"), exponent=1.0, n_contents=0, seed=0)

    def test_a_law_does_not_overrule_what_is_known(self) -> None:
        declared = declare_popularity(azure_trace("azure-code"), exponent=1.0, seed=0)
        with pytest.raises(WorkloadError, match=r"already says what repeats \(declared\)\. Got 2\.0"):
            declare_popularity(declared, exponent=2.0, seed=0)


class TestAssignExamples:
    @given(traffic=traffics(), seed=seeds, size=st.integers(1, 12))
    def test_contents_share_examples_evenly_at_any_split_size(self, traffic: Traffic, seed: int, size: int) -> None:
        assigned = assign_examples(traffic, seed=seed)
        of_content = dict(zip(assigned.content.tolist(), assigned.example.tolist(), strict=True))
        counts = Counter(example % size for example in of_content.values())
        assert max(counts.values()) - min(counts[number] for number in range(size)) <= 1

    @given(traffic=traffics(), seed=seeds)
    def test_equal_content_stands_on_one_example_and_contents_stay(self, traffic: Traffic, seed: int) -> None:
        assigned = assign_examples(traffic, seed=seed)
        pairs = set(zip(assigned.content.tolist(), assigned.example.tolist(), strict=True))
        assert len(pairs) == len(np.unique(traffic.content)) == len(np.unique(assigned.example))
        assert assigned.example.min() >= 0
        assert np.array_equal(assigned.content, traffic.content)
        assert assigned.repeats == traffic.repeats

    def test_order_is_random_by_seed(self) -> None:
        trace = azure_trace("azure-code")
        first, again, other = (assign_examples(trace, seed=seed).example for seed in (0, 0, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert abs(np.corrcoef(first, np.arange(8819))[0, 1]) < 0.06


def test_transforms_tell_their_whole_story() -> None:
    traffic = speed_up(multiply(thin(azure_trace("azure-code"), 0.5, seed=0), 2, seed=0), 3.0)
    assert traffic.source == (
        "azure-code (Azure LLM inference trace, November 2023), thinned to 0.5 at random, "
        "each arrival made into 2 (copies repeat nothing), 3 times as fast"
    )

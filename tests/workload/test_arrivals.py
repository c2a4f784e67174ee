from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halve.core import Traffic
from halve.errors import InvalidParameterError, WorkloadError
from halve.workload import describe, diurnal, gamma_bursts, poisson, read_arrivals

RATE, DURATION = 50.0, 400.0
GENERATORS: dict[str, Callable[..., Traffic]] = {
    "poisson": poisson,
    "gamma": lambda rate, **more: gamma_bursts(rate, squared_variation=4.0, **more),
    "regular": lambda rate, **more: gamma_bursts(rate, squared_variation=0.25, **more),
    "diurnal": lambda rate, **more: diurnal(rate, peak_to_mean=1.8, period_seconds=100.0, **more),
}


def log(folder: Path, *lines: str, header: str = "timestamp") -> Path:
    path = folder / "log.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


class TestLog:
    def test_seconds_start_at_zero_and_may_coincide(self, tmp_path: Path) -> None:
        traffic = read_arrivals(log(tmp_path, "10.5", "11", "11.0", "14.5"))
        assert traffic.arrival_seconds.tolist() == [0.0, 0.5, 0.5, 4.0]
        assert traffic.duration_seconds == 4.0
        assert (traffic.repeats, traffic.source) == ("none", "log.csv")
        assert len(set(traffic.content.tolist())) == 4

    @pytest.mark.parametrize(
        "lines",
        [
            ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:04.0319600", "2023-11-17 18:17:03.9799600"),
            ("2023-11-16T18:17:03.97996Z", "2023-11-16T19:17:04.03196+01:00", "2023-11-17T18:17:03.97996+00:00"),
        ],
    )
    def test_iso_times(self, tmp_path: Path, lines: tuple[str, ...]) -> None:
        traffic = read_arrivals(log(tmp_path, *lines))
        assert traffic.arrival_seconds.tolist() == pytest.approx([0.0, 0.052, 86_400.0], abs=1e-6)

    def test_content_column_shows_repeats(self, tmp_path: Path) -> None:
        path = log(tmp_path, "0,how are you", "1,bye", "2,how are you", "3,How are you", header="when,what")
        traffic = read_arrivals(path, timestamp="when", content="what")
        assert traffic.content.tolist() == [0, 1, 0, 2]
        assert traffic.repeats == "observed"

    @given(times=st.lists(st.floats(0, 1e6), min_size=2, max_size=30).filter(lambda t: max(t) - min(t) > 1e-3))
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_sorted_log_is_read_back(self, tmp_path: Path, times: list[float]) -> None:
        times.sort()
        traffic = read_arrivals(log(tmp_path, *map(repr, times)))
        assert traffic.arrival_seconds.tolist() == [time - times[0] for time in times]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (("0", "2", "1", "0"), r"timestamp of row 3 of .*log.csv must be not before row 2, '2': sort .* Got '1'\."),
            (("2023-01-02", "2023-01-01"), r"row 2 of .* must be not before row 1, '2023-01-02'.* Got '2023-01-01'\."),
            (("0", "nan"), r"row 2 of .* must be finite and at least 0\. Got 'nan'\."),
            (("0", "inf"), r"row 2 of .* must be finite and at least 0\. Got 'inf'\."),
            (("-1", "0"), r"row 1 of .* must be finite and at least 0\. Got '-1'\."),
            (("soon",), r"row 1 of .* must be a number of seconds or an ISO 8601 time\. Got 'soon'\."),
            (("1", "2023-01-01"), r"row 2 of .* must be a time like row 1\. Got '2023-01-01'\."),
            (("2023-01-01", "7.5"), r"row 2 of .* must be a time like row 1\. Got '7.5'\."),
            (("2023-01-01T00:00", "2023-01-01T01:00Z"), r"row 2 of .* must be a time like row 1\. Got"),
            (("5", "5"), r"must hold at least 2 different times\. All are '5'\."),
            (("5",), r"must hold at least 2 different times\. All are '5'\."),
        ],
    )
    def test_unusable_times_name_the_first_row(self, tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
        with pytest.raises(WorkloadError, match=message):
            read_arrivals(log(tmp_path, *lines))

    def test_missing_column_names_the_near_one(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"must have a column 'timestamp'\. Did you mean 'timestamps'\?"):
            read_arrivals(log(tmp_path, "1", header="timestamps"))


class TestGenerators:
    @pytest.mark.parametrize("name", GENERATORS)
    def test_sorted_within_the_duration_and_nothing_repeats(self, name: str) -> None:
        traffic = GENERATORS[name](RATE, duration_seconds=DURATION, seed=3)
        assert np.all(np.diff(traffic.arrival_seconds) >= 0)
        assert traffic.arrival_seconds[-1] < traffic.duration_seconds == DURATION
        assert len(np.unique(traffic.content)) == traffic.n_requests
        assert traffic.repeats == "none"
        assert "seed 3" in traffic.source

    @pytest.mark.parametrize("name", GENERATORS)
    def test_same_seed_same_arrivals(self, name: str) -> None:
        first, again, other = (GENERATORS[name](RATE, duration_seconds=10.0, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(first.arrival_seconds, again.arrival_seconds)
        assert not np.array_equal(first.arrival_seconds, other.arrival_seconds)

    @pytest.mark.parametrize(("name", "variation"), [("poisson", 1), ("gamma", 4), ("regular", 0.25), ("diurnal", 1)])
    def test_mean_rate(self, name: str, variation: float) -> None:
        counts = [GENERATORS[name](RATE, duration_seconds=DURATION, seed=seed).n_requests for seed in range(20)]
        expected = RATE * DURATION
        assert np.mean(counts) == pytest.approx(expected, abs=5 * (variation * expected / 20) ** 0.5)

    @pytest.mark.parametrize(("name", "variation"), [("poisson", 1.0), ("gamma", 4.0), ("regular", 0.25)])
    def test_variation_of_gaps(self, name: str, variation: float) -> None:
        traffic = GENERATORS[name](RATE, duration_seconds=DURATION, seed=0)
        assert describe(traffic).gap_squared_variation == pytest.approx(variation, rel=0.15)

    def test_gamma_of_variation_one_is_exponential(self) -> None:
        gaps = np.diff(gamma_bursts(RATE, duration_seconds=DURATION, squared_variation=1.0, seed=0).arrival_seconds)
        n = len(gaps)
        for level in (0.1, 0.5, 0.9):
            share = np.mean(gaps <= -np.log(1 - level) / RATE)
            assert share == pytest.approx(level, abs=5 * (level * (1 - level) / n) ** 0.5)

    def test_very_bursty_gaps_still_fill_the_duration(self) -> None:
        for seed in range(20):
            traffic = gamma_bursts(100.0, duration_seconds=100.0, squared_variation=1000.0, seed=seed)
            assert traffic.arrival_seconds[-1] < 100.0

    def test_diurnal_follows_its_sine(self) -> None:
        traffic = diurnal(200.0, duration_seconds=1000.0, peak_to_mean=1.8, period_seconds=100.0, seed=0)
        phase = traffic.arrival_seconds % 100.0
        counts, edges = np.histogram(phase, bins=10, range=(0, 100.0))
        middle = (edges[:-1] + edges[1:]) / 2
        width = np.sinc(0.1)  # mean of a cosine over a bin, against its middle
        expected = 20_000 * (1 - 0.8 * width * np.cos(2 * np.pi * middle / 100.0))
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))

    def test_diurnal_without_a_peak_is_flat(self) -> None:
        traffic = diurnal(100.0, duration_seconds=200.0, peak_to_mean=1.0, seed=0)
        assert describe(traffic).gap_squared_variation == pytest.approx(1.0, rel=0.1)

    @pytest.mark.parametrize("name", GENERATORS)
    @pytest.mark.parametrize(
        ("rate", "duration", "message"),
        [
            (0.0, 1.0, r"requests_per_second must be positive and finite\. Got 0\.0"),
            (float("nan"), 1.0, r"requests_per_second must be positive and finite\. Got nan"),
            (1.0, -1.0, r"duration_seconds must be positive and finite\. Got -1\.0"),
            (1.0, float("inf"), r"duration_seconds must be positive and finite\. Got inf"),
            (1e6, 1e6, r"must be at most 100000000 arrivals\. Got 1000000000000\.0"),
        ],
    )
    def test_impossible_load_is_refused(self, name: str, rate: float, duration: float, message: str) -> None:
        with pytest.raises(InvalidParameterError, match=message):
            GENERATORS[name](rate, duration_seconds=duration, seed=0)

    @pytest.mark.parametrize("name", GENERATORS)
    def test_no_arrival_at_all_is_refused(self, name: str) -> None:
        with pytest.raises(
            WorkloadError, match=r"must hold at least 1 arrival\. Got 0: raise the rate or the duration\."
        ):
            GENERATORS[name](1e-9, duration_seconds=1.0, seed=0)

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
    def test_shape_parameters_out_of_range(self, value: float) -> None:
        with pytest.raises(
            InvalidParameterError, match=rf"squared_variation must be positive and finite\. Got {value}"
        ):
            gamma_bursts(1.0, duration_seconds=1.0, squared_variation=value, seed=0)
        with pytest.raises(InvalidParameterError, match=rf"period_seconds must be positive and finite\. Got {value}"):
            diurnal(1.0, duration_seconds=1.0, peak_to_mean=1.5, period_seconds=value, seed=0)
        with pytest.raises(InvalidParameterError, match=rf"peak_to_mean must be in \[1, 2\]\. Got {value}"):
            diurnal(1.0, duration_seconds=1.0, peak_to_mean=value, seed=0)

"""What a traffic is like, in numbers and in one sentence about repeats."""

from dataclasses import dataclass

import numpy as np

from halve.core import FloatArray, Repeats, Traffic
from halve.units import format_percent


@dataclass(frozen=True, kw_only=True)
class TrafficDescription:
    """A traffic in numbers.

    Args:
        source: What it is, for people.
        n_requests: Arrivals.
        duration_seconds: Length of the observation.
        mean_requests_per_second: Arrivals over the duration.
        peak_1s_requests_per_second, peak_10s_requests_per_second, peak_60s_requests_per_second: Rate of the busiest
            window of that length (of the whole duration, if that is shorter), windows laid end to end from 0.
        peak_to_mean: Peak over 1 s / mean; >= 1 up to the last, partial window.
        gap_squared_variation: Variance / squared mean of the gaps between arrivals: 1 for Poisson, more for bursts;
            0 if there are no two gaps, or none that is positive.
        simultaneous_share: Share of arrivals at exactly the time of the one before.
        repeat_share: Share of arrivals that ask what an earlier one asked.
        repeats: Where repeats come from.
        assumption: The same as a sentence, for the report.
    """

    source: str
    n_requests: int
    duration_seconds: float
    mean_requests_per_second: float
    peak_1s_requests_per_second: float
    peak_10s_requests_per_second: float
    peak_60s_requests_per_second: float
    peak_to_mean: float
    gap_squared_variation: float
    simultaneous_share: float
    repeat_share: float
    repeats: Repeats
    assumption: str


def describe(traffic: Traffic) -> TrafficDescription:
    """Return the description of a traffic. O(n log n)."""
    n = traffic.n_requests
    gaps = np.diff(traffic.arrival_seconds)
    repeat_share = 1 - len(np.unique(traffic.content)) / n
    peaks = [
        traffic.peak_requests_per_second(window_seconds=min(window, traffic.duration_seconds))
        for window in (1.0, 10.0, 60.0)
    ]
    return TrafficDescription(
        source=traffic.source,
        n_requests=n,
        duration_seconds=traffic.duration_seconds,
        mean_requests_per_second=traffic.mean_requests_per_second,
        peak_1s_requests_per_second=peaks[0],
        peak_10s_requests_per_second=peaks[1],
        peak_60s_requests_per_second=peaks[2],
        peak_to_mean=peaks[0] / traffic.mean_requests_per_second,
        gap_squared_variation=_squared_variation(gaps),
        simultaneous_share=float(np.sum(gaps == 0)) / n,
        repeat_share=repeat_share,
        repeats=traffic.repeats,
        assumption=_assumption(traffic.repeats, repeat_share),
    )


def _squared_variation(gaps: FloatArray) -> float:
    if len(gaps) < 2 or gaps.max() == 0:
        return 0.0
    return float(np.var(gaps) / np.mean(gaps) ** 2)


def _assumption(repeats: Repeats, share: float) -> str:
    if repeats == "none":
        return "No repeats are assumed: nothing says what was asked, so no cache can earn from them."
    asked = f"{format_percent(share)} of the requests ask what an earlier one asked"
    if repeats == "observed":
        return f"Repeats are observed: by the log's own column of contents, {asked}."
    return f"Repeats are declared, not observed: by the law you stated, {asked}; what caches earn rests on it."

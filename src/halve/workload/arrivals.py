"""Traffic out of a log, or drawn from a process. Changes no traffic."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from halve.core import FloatArray, IntArray, Repeats, Traffic
from halve.errors import InvalidParameterError, WorkloadError
from halve.workload.files import read_csv_columns
from halve.workload.streams import random_stream

MOST_ARRIVALS = 100_000_000
"""Arrivals that a generator may be asked for: 2.4 GB of arrays."""


def read_arrivals(path: Path, *, timestamp: str = "timestamp", content: str | None = None) -> Traffic:
    """Return the traffic of a CSV log, its first arrival at 0 and its last at the end.

    Equal timestamps are two requests at once. With a content column, equal cells are equal requests (repeats are
    observed); without one, nothing repeats.

    Args:
        path: CSV with a header.
        timestamp: Column of seconds (>= 0) or of ISO 8601 times; microseconds are kept.
        content: Column that names what was asked: an id, or the text itself.

    Raises:
        WorkloadError: If the file cannot be read, a cell is not a time, times are not sorted, or all are equal; it
            names the first offending row, counted from 1 without the header.
    """
    cells, *rest = read_csv_columns(path, columns=[timestamp] if content is None else [timestamp, content])
    seconds = _seconds(cells, column=timestamp, path=path)
    back = np.flatnonzero(np.diff(seconds) < 0)
    if len(back):
        row = int(back[0]) + 2
        rule = f"not before row {row - 1}, {cells[row - 2]!r}: sort the log by time"
        raise WorkloadError(f"{timestamp} of row {row} of {path} must be {rule}. Got {cells[row - 1]!r}.")
    arrivals = seconds - seconds[0]
    if arrivals[-1] == 0:
        raise WorkloadError(f"{timestamp} of {path} must hold at least 2 different times. All are {cells[0]!r}.")
    numbers = np.arange(len(cells), dtype=np.int64)
    if rest:
        first_seen: dict[str, int] = {}
        numbers = np.array([first_seen.setdefault(cell, len(first_seen)) for cell in rest[0]], dtype=np.int64)
    return _traffic(
        arrivals,
        duration_seconds=float(arrivals[-1]),
        source=str(path.name),
        content=numbers,
        repeats="observed" if rest else "none",
    )


def poisson(requests_per_second: float, *, duration_seconds: float, seed: int) -> Traffic:
    """Return arrivals without memory: exponential gaps of mean 1 / rate.

    Drawn as a Poisson number of times, uniform over the duration, sorted.

    Raises:
        InvalidParameterError: If a value is out of range, or more than MOST_ARRIVALS are expected.
        WorkloadError: If no arrival falls into the duration.
    """
    _check_rate(requests_per_second, duration_seconds)
    rng = random_stream(seed, purpose="poisson")
    n = int(rng.poisson(requests_per_second * duration_seconds))
    arrivals = np.sort(rng.uniform(0.0, duration_seconds, n))
    source = f"Poisson arrivals, {requests_per_second:g} a second for {duration_seconds:g} s, seed {seed}"
    return _traffic(arrivals, duration_seconds=duration_seconds, source=source)


def gamma_bursts(
    requests_per_second: float, *, duration_seconds: float, squared_variation: float, seed: int
) -> Traffic:
    """Return arrivals with independent gamma gaps of mean 1 / rate and variance squared_variation / rate**2.

    Shape 1 / squared_variation. Squared variation 1 is Poisson, above is bursty, below is regular.

    Raises:
        InvalidParameterError: If a value is out of range, or more than MOST_ARRIVALS are expected.
        WorkloadError: If no arrival falls into the duration.
    """
    _check_rate(requests_per_second, duration_seconds)
    if not 0 < squared_variation < float("inf"):
        raise InvalidParameterError("squared_variation", rule="positive and finite", value=squared_variation)
    rng = random_stream(seed, purpose="gamma_bursts")
    expected = requests_per_second * duration_seconds
    block = int(expected + 4 * np.sqrt(expected * squared_variation)) + 16
    parts: list[FloatArray] = []
    last = 0.0
    while last < duration_seconds:
        gaps = rng.gamma(1 / squared_variation, squared_variation / requests_per_second, block)
        parts.append(last + np.cumsum(gaps))
        last = float(parts[-1][-1])
    arrivals = np.concatenate(parts)
    source = (
        f"gamma bursts, {requests_per_second:g} a second for {duration_seconds:g} s, "
        f"squared variation {squared_variation:g}, seed {seed}"
    )
    arrivals = arrivals[arrivals < duration_seconds]
    return _traffic(arrivals, duration_seconds=duration_seconds, source=source)


def diurnal(
    requests_per_second: float,
    *,
    duration_seconds: float,
    peak_to_mean: float,
    seed: int,
    period_seconds: float = 86_400.0,
) -> Traffic:
    """Return Poisson arrivals whose rate is a sine of the day, from its lowest point at time 0.

    rate(t) = requests_per_second x (1 - (peak_to_mean - 1) cos(2 pi t / period)), drawn by thinning arrivals of the
    peak rate.

    Source: Lewis and Shedler 1979, Simulation of nonhomogeneous Poisson processes by thinning.

    Args:
        requests_per_second: Mean over whole periods; a shorter duration starts at the low and has fewer.
        duration_seconds: > 0.
        peak_to_mean: In [1, 2]; at 2 the rate touches 0.
        seed: Of the draw.
        period_seconds: > 0.

    Raises:
        InvalidParameterError: If a value is out of range, or more than MOST_ARRIVALS are expected.
        WorkloadError: If no arrival falls into the duration.
    """
    _check_rate(requests_per_second, duration_seconds)
    if not 1 <= peak_to_mean <= 2:
        raise InvalidParameterError("peak_to_mean", rule="in [1, 2]", value=peak_to_mean)
    if not 0 < period_seconds < float("inf"):
        raise InvalidParameterError("period_seconds", rule="positive and finite", value=period_seconds)
    rng = random_stream(seed, purpose="diurnal")
    candidates = np.sort(
        rng.uniform(0.0, duration_seconds, rng.poisson(requests_per_second * peak_to_mean * duration_seconds))
    )
    share = (1 - (peak_to_mean - 1) * np.cos(2 * np.pi * candidates / period_seconds)) / peak_to_mean
    arrivals = candidates[rng.random(len(candidates)) < share]
    source = (
        f"diurnal arrivals, {requests_per_second:g} a second for {duration_seconds:g} s, "
        f"peak to mean {peak_to_mean:g}, period {period_seconds:g} s, seed {seed}"
    )
    return _traffic(arrivals, duration_seconds=duration_seconds, source=source)


def _traffic(
    arrivals: FloatArray,
    *,
    duration_seconds: float,
    source: str,
    content: IntArray | None = None,
    repeats: Repeats = "none",
) -> Traffic:
    if len(arrivals) == 0:
        raise WorkloadError(f"{source}: traffic must hold at least 1 arrival. Got 0: raise the rate or the duration.")
    numbers = np.arange(len(arrivals), dtype=np.int64) if content is None else content
    return Traffic(
        arrival_seconds=arrivals,
        content=numbers,
        example=numbers,
        duration_seconds=duration_seconds,
        repeats=repeats,
        source=source,
    )


def _check_rate(requests_per_second: float, duration_seconds: float) -> None:
    for name, value in (("requests_per_second", requests_per_second), ("duration_seconds", duration_seconds)):
        if not 0 < value < float("inf"):
            raise InvalidParameterError(name, rule="positive and finite", value=value)
    expected = requests_per_second * duration_seconds
    if expected > MOST_ARRIVALS:
        rule = f"at most {MOST_ARRIVALS} arrivals"
        raise InvalidParameterError("requests_per_second x duration_seconds", rule=rule, value=expected)


def _seconds(cells: Sequence[str], *, column: str, path: Path) -> FloatArray:
    """Seconds, float64 (n,); the first cell decides whether the column holds numbers or ISO 8601 times."""
    convert: Callable[[str], float] = float if _converts(float, cells[0]) else _iso_clock(cells[0])
    seconds = np.empty(len(cells))
    for position, cell in enumerate(cells):
        try:
            seconds[position] = convert(cell)
        except (ValueError, TypeError):  # TypeError: a time with an offset beside one without
            rule = "a time like row 1" if position else "a number of seconds or an ISO 8601 time"
            raise WorkloadError(f"{column} of row {position + 1} of {path} must be {rule}. Got {cell!r}.") from None
    bad = np.flatnonzero(~np.isfinite(seconds) | (seconds < 0)) if convert is float else np.empty(0, dtype=np.int64)
    if len(bad):
        row = int(bad[0])
        rule = "finite and at least 0"
        raise WorkloadError(f"{column} of row {row + 1} of {path} must be {rule}. Got {cells[row]!r}.")
    return seconds


def _converts(convert: Callable[[str], object], cell: str) -> bool:
    try:
        convert(cell)
    except ValueError:
        return False
    return True


def _iso_clock(first: str) -> Callable[[str], float]:
    """Seconds since the first time; a ValueError or TypeError for what is not a time of the same kind."""

    def seconds(cell: str) -> float:
        return (datetime.fromisoformat(cell.strip()) - datetime.fromisoformat(first.strip())).total_seconds()

    return seconds

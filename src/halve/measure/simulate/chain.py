"""Simulate a trace through a feed-forward chain of stations. Draws come from a seed; nothing is measured here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halve.core import FloatArray, IntArray
from halve.errors import InvalidParameterError
from halve.measure.simulate.station import Simulation, Station, StationLoad

_OVERHEAD_STREAM = 0
_FIRST_STATION_STREAM = 1


def simulate(
    arrival_seconds: FloatArray,
    *,
    stations: Sequence[Station],
    exits: IntArray,
    duration_seconds: float,
    seed: int = 0,
    overhead_seconds: FloatArray | None = None,
) -> Simulation:
    """Return every request's latency and every station's load.

    Request i visits stations 0..exits[i] in order. At each it queues first come, first served; a free replica
    takes a batch as `BatchPolicy` says; all of a batch finish together. Requests that arrive at the very moment
    a batch starts are in it if there is room. Requests of one batch keep their order at the next station.

    The k-th batch of a station is stretched by the same noise whatever the replicas and policies are, so
    candidates are compared on common random numbers. Cost: O(visits) if batches
    finish about in the order they start, O(visits x replicas) at worst.

    Args:
        arrival_seconds: float64 (n,), n >= 1: finite, sorted, at least 0.
        stations: The chain, at least one.
        exits: int64 (n,): index of the station after which a request leaves.
        duration_seconds: Length of the observation, at least the last arrival.
        seed: Of the noise and the overhead, >= 0.
        overhead_seconds: float64 (k,): extra latency, drawn independently per request, in no station's way.

    Raises:
        InvalidParameterError: If a value breaks its rule.
    """
    arrivals = np.ascontiguousarray(arrival_seconds, dtype=np.float64)
    if np.asarray(exits).dtype.kind not in "iu":
        raise InvalidParameterError("exits", rule="whole numbers", value=np.asarray(exits).dtype)
    last_stations = np.ascontiguousarray(exits, dtype=np.int64)
    _check(arrivals, stations=stations, exits=last_stations, duration_seconds=duration_seconds, seed=seed)
    left_at = np.empty(len(arrivals))
    visits = _Visits(
        arrivals=arrivals, ids=np.arange(len(arrivals), dtype=np.int32), exits=last_stations, left_at=left_at
    )
    results = [visits.serve(number, station=station, seed=seed) for number, station in enumerate(stations)]
    span_seconds = max(duration_seconds, float(left_at.max()))
    loads = tuple(
        _load(station, waits=waits, n_batches=n_batches, busy_seconds=busy_seconds, span_seconds=span_seconds)
        for station, (waits, n_batches, busy_seconds) in zip(stations, results, strict=True)
    )
    latency = np.subtract(left_at, arrivals, out=left_at)
    if overhead_seconds is not None:
        latency += _overheads(overhead_seconds, n=len(arrivals), seed=seed)
    return Simulation(latency_seconds=latency, loads=loads)


def service_ratios(station: Station, *, number: int, count: int, seed: int) -> FloatArray:
    """Return the factors of the first `count` batches of the chain's station of that number; empty without noise."""
    if station.noise_ratios is None:
        return np.empty(0)
    ratios = np.asarray(station.noise_ratios, dtype=np.float64)
    return ratios[_draws(len(ratios), number=number, count=count, seed=seed)]


def _draws(n_ratios: int, *, number: int, count: int, seed: int) -> NDArray[np.int32]:
    draw = np.random.default_rng([seed, _FIRST_STATION_STREAM + number])
    return draw.integers(0, n_ratios, size=count, dtype=np.int32)


class _Visits:
    """The requests on their way: who is where, and since when."""

    def __init__(self, *, arrivals: FloatArray, ids: NDArray[np.int32], exits: IntArray, left_at: FloatArray) -> None:
        self._arrivals, self._ids, self._exits, self._left_at = arrivals, ids, exits, left_at

    def serve(self, number: int, *, station: Station, seed: int) -> tuple[FloatArray, int, float]:
        """Move everybody through one station; return waits, number of batches, busy seconds."""
        from halve.measure.simulate.kernel import serve

        n_next = int(np.count_nonzero(self._exits > number))
        waits, next_arrivals = np.empty(len(self._arrivals)), np.empty(n_next)
        next_ids = np.empty(n_next, dtype=np.int32)
        seconds = np.ascontiguousarray(station.seconds_by_batch[: station.batch.max_batch_size], dtype=np.float64)
        ratios, draws = np.empty(0), np.empty(0, dtype=np.int32)
        if station.noise_ratios is not None:
            ratios = np.ascontiguousarray(station.noise_ratios, dtype=np.float64)
            draws = _draws(len(ratios), number=number, count=len(self._arrivals), seed=seed)
        n_batches, busy_seconds = serve(
            *(self._arrivals, self._ids, self._exits, number),
            *(seconds, station.batch.max_wait_seconds, station.replicas, ratios, draws),
            *(waits, self._left_at, next_arrivals, next_ids),
        )
        self._arrivals, self._ids = next_arrivals, next_ids
        return waits, int(n_batches), float(busy_seconds)


def _load(
    station: Station, *, waits: FloatArray, n_batches: int, busy_seconds: float, span_seconds: float
) -> StationLoad:
    n = len(waits)
    return StationLoad(
        name=station.name,
        utilization=min(1.0, busy_seconds / (station.replicas * span_seconds)),
        busy_seconds=busy_seconds,
        n_requests=n,
        n_batches=n_batches,
        mean_batch_size=n / n_batches if n else 0.0,
        mean_wait_seconds=float(waits.mean()) if n else 0.0,
        wait_p99_seconds=float(np.quantile(waits, 0.99, overwrite_input=True)) if n else 0.0,
    )


def _overheads(overhead_seconds: FloatArray, *, n: int, seed: int) -> FloatArray:
    samples = np.asarray(overhead_seconds, dtype=np.float64)
    if samples.ndim != 1 or len(samples) == 0:
        raise InvalidParameterError("overhead_seconds", rule="None or a row of at least 1 number", value=samples.shape)
    bad = samples[~(np.isfinite(samples) & (samples >= 0))]
    if len(bad):
        raise InvalidParameterError("overhead_seconds", rule="finite and at least 0", value=float(bad[0]))
    draw = np.random.default_rng([seed, _OVERHEAD_STREAM])
    return samples[draw.integers(0, len(samples), size=n)]


def _check(
    arrivals: FloatArray, *, stations: Sequence[Station], exits: IntArray, duration_seconds: float, seed: int
) -> None:
    if not stations:
        raise InvalidParameterError("stations", rule="at least 1", value=0)
    if arrivals.ndim != 1 or len(arrivals) == 0:
        raise InvalidParameterError("arrival_seconds", rule="a row of at least 1 number", value=arrivals.shape)
    # A comparison with NaN is false, so a NaN anywhere but in a row of one number breaks the order too.
    is_sorted = bool(np.all(arrivals[1:] >= arrivals[:-1]))
    if not is_sorted or not arrivals[0] >= 0 or not np.isfinite(arrivals[-1]):
        raise InvalidParameterError("arrival_seconds", rule="finite, sorted, from 0", value=_first_bad(arrivals))
    if exits.shape != arrivals.shape:
        rule = f"one for each arrival, {arrivals.shape}"
        raise InvalidParameterError("exits", rule=rule, value=exits.shape)
    low, high = int(exits.min()), int(exits.max())
    if low < 0 or high >= len(stations):
        rule = f"in 0..{len(stations) - 1}, the stations"
        raise InvalidParameterError("exits", rule=rule, value=low if low < 0 else high)
    if not arrivals[-1] <= duration_seconds < np.inf or duration_seconds <= 0:
        rule = f"positive, finite and at least the last arrival, {float(arrivals[-1])}"
        raise InvalidParameterError("duration_seconds", rule=rule, value=duration_seconds)
    if seed < 0:
        raise InvalidParameterError("seed", rule="at least 0", value=seed)


def _first_bad(arrivals: FloatArray) -> str:
    wrong = ~np.isfinite(arrivals) | (arrivals < 0)
    wrong[1:] |= arrivals[1:] < arrivals[:-1]
    index = int(np.argmax(wrong))
    return f"{float(arrivals[index])} at index {index}"

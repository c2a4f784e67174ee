"""The nouns of the simulator: a station, what it carried, and what a whole simulation says."""

from dataclasses import dataclass

import numpy as np

from halve.core import BatchPolicy, FloatArray
from halve.errors import InvalidParameterError


@dataclass(frozen=True, kw_only=True)
class Station:
    """One queue with identical replicas behind it.

    Args:
        name: For messages.
        seconds_by_batch: float64 (sizes,): service seconds of a batch, finite, >= 0; index 0 is a batch of 1.
            At least `batch.max_batch_size` long; later entries are not used.
        replicas: How many serve the queue, >= 1.
        batch: When a free replica takes waiting requests.
        noise_ratios: float64 (k,), positive: each batch's seconds are multiplied by one of them, drawn
            independently and evenly. None makes service deterministic.

    Raises:
        InvalidParameterError: If a value breaks its rule.
    """

    name: str
    seconds_by_batch: FloatArray
    replicas: int
    batch: BatchPolicy
    noise_ratios: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise InvalidParameterError(f"replicas of {self.name}", rule="at least 1", value=self.replicas)
        seconds = np.asarray(self.seconds_by_batch)
        if seconds.ndim != 1 or len(seconds) < self.batch.max_batch_size:
            rule = f"one number for each batch size up to max_batch_size, {self.batch.max_batch_size}"
            raise InvalidParameterError(f"seconds_by_batch of {self.name}", rule=rule, value=seconds.shape)
        bad = seconds[~(np.isfinite(seconds) & (seconds >= 0))]
        if len(bad):
            rule = "finite and at least 0"
            raise InvalidParameterError(f"seconds_by_batch of {self.name}", rule=rule, value=float(bad[0]))
        if self.noise_ratios is not None:
            _check_ratios(self.name, np.asarray(self.noise_ratios))


def _check_ratios(name: str, ratios: FloatArray) -> None:
    if ratios.ndim != 1 or len(ratios) == 0:
        rule = "None or a row of at least 1 number"
        raise InvalidParameterError(f"noise_ratios of {name}", rule=rule, value=ratios.shape)
    bad = ratios[~(np.isfinite(ratios) & (ratios > 0))]
    if len(bad):
        raise InvalidParameterError(f"noise_ratios of {name}", rule="finite and positive", value=float(bad[0]))


@dataclass(frozen=True, kw_only=True)
class StationLoad:
    """What one station carried.

    Args:
        name: The station's.
        utilization: busy_seconds / (replicas x span), in [0, 1]. The span is the observation's duration,
            or until the last answer if that is later: a station that cannot keep up stays at 1.
        busy_seconds: Service seconds, summed over replicas.
        n_requests: Requests that visited the station.
        n_batches: Batches it ran.
        mean_batch_size: n_requests / n_batches; 0 if nothing came.
        mean_wait_seconds: From arrival at the station to the start of the batch; 0 if nothing came.
        wait_p99_seconds: 99th percentile of the same; 0 if nothing came.
    """

    name: str
    utilization: float
    busy_seconds: float
    n_requests: int
    n_batches: int
    mean_batch_size: float
    mean_wait_seconds: float
    wait_p99_seconds: float


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A trace, simulated.

    Args:
        latency_seconds: float64 (n,): arrival to answer, in arrival order.
        loads: One per station, in the order of the chain.
    """

    latency_seconds: FloatArray
    loads: tuple[StationLoad, ...]

"""What was measured of a stack: money as a ledger, latency, utilization, and the scores of every request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from halve.core.workload import FloatArray
from halve.errors import InvalidParameterError

QUANTILE_LEVELS = (
    0.01, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 0.95, 0.975, 0.99, 0.995, 0.999, 1.0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine and the versions behind a measurement."""

    processor: str
    cpu_count: int
    memory_bytes: int
    instruction_sets: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """One named line of the bill. Negative lines are refunds and stay negative."""

    name: str
    usd_per_1k_requests: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Request latency from intended send time to answer, as quantiles at QUANTILE_LEVELS."""

    mean_seconds: float
    quantile_seconds: tuple[float, ...]

    @classmethod
    def of(cls, latencies_seconds: FloatArray) -> "Latency":
        """Summarize latencies, float64 (n,), n >= 1."""
        if len(latencies_seconds) == 0:
            raise InvalidParameterError("latencies_seconds", rule="at least one", value=0)
        values = np.quantile(latencies_seconds, QUANTILE_LEVELS)
        return cls(
            mean_seconds=float(np.mean(latencies_seconds)),
            quantile_seconds=tuple(float(value) for value in values),
        )

    def at(self, level: float) -> float:
        """Return the quantile at one of QUANTILE_LEVELS."""
        return self.quantile_seconds[QUANTILE_LEVELS.index(level)]

    @property
    def p50_seconds(self) -> float:
        """Median."""
        return self.at(0.50)

    @property
    def p99_seconds(self) -> float:
        """99th percentile."""
        return self.at(0.99)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One stack, measured once.

    Args:
        stack: The stack's name.
        provenance: `simulated` (composed from tables) or `replayed` (really served).
        split: Which examples the scores belong to.
        scores: One per example of the split, in its order, so that comparisons are paired.
        ledger: Lines that sum to the cost.
        latency: Over all requests of the trace.
        utilization: Busy share of each station (gateway and each model), in [0, 1].
        stage_share: Share of requests that each stage answered; sums to 1.
        instances: Instances by type.
        peak_memory_bytes: Memory that one replica of every model needs together.
        n_requests: Requests behind the latency.
    """

    stack: str
    provenance: Literal["simulated", "replayed"]
    split: Literal["search", "certify"]
    scores: tuple[float, ...]
    ledger: tuple[LedgerLine, ...]
    latency: Latency
    utilization: Mapping[str, float]
    stage_share: Mapping[str, float]
    instances: Mapping[str, int]
    peak_memory_bytes: int
    n_requests: int
    notes: tuple[str, ...] = field(default=())

    @property
    def usd_per_1k_requests(self) -> float:
        """Sum of the ledger."""
        return sum(line.usd_per_1k_requests for line in self.ledger)

    @property
    def quality(self) -> float:
        """Mean score over the examples."""
        return float(np.mean(self.scores))

"""What a replay found out, one row per request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.core import FloatArray
from halve.measure.replay.bodies import Answer, read_answer
from halve.measure.replay.connection import Exchange


@dataclass(frozen=True, kw_only=True)
class ReplayRecord:
    """What happened to each request of a trace, in its order.

    Args:
        latency_seconds: float64 (n,): from intended send time to the whole reply; NaN if there was no answer.
        send_lateness_seconds: float64 (n,): from intended send time to the write; NaN if it was never sent.
        labels: int64 (n,), -1 where there was no answer; or objects (n,) with "" there, for text answers.
        stages: Which stage answered; "" where none did.
        failures: Requests without an answer, by reason.
        most_connections: Connections that were open at once.
        client_cpu_share: Processor time of this process over wall time: 1 is one busy core.
        wall_seconds: From trace time 0 to the last reply, or the last arrival if that is later.
        started_monotonic_seconds: `time.monotonic` of trace time 0.
    """

    latency_seconds: FloatArray
    send_lateness_seconds: FloatArray
    labels: NDArray[np.int64] | NDArray[np.object_]
    stages: tuple[str, ...]
    failures: Mapping[str, int]
    most_connections: int
    client_cpu_share: float
    wall_seconds: float
    started_monotonic_seconds: float

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return sum(self.failures.values())


Labels = NDArray[np.int64] | NDArray[np.object_]


def read_labels(exchanges: Sequence[Exchange]) -> tuple[Labels, tuple[str, ...], list[str]]:
    """Return labels, stages, and why a request has no answer ("" where it has one)."""
    answers: list[Answer | None] = []
    reasons: list[str] = []
    for exchange in exchanges:
        answer = read_answer(exchange.reply) if exchange.status == 200 else None
        unread = "" if answer is not None else "a reply without a label"
        reasons.append(exchange.reason or (f"HTTP {exchange.status}" if exchange.status != 200 else unread))
        answers.append(answer)
    stages = tuple(answer.stage if answer is not None else "" for answer in answers)
    labels: Labels
    if any(answer is not None and isinstance(answer.label, str) for answer in answers):
        labels = np.array([str(answer.label) if answer is not None else "" for answer in answers], dtype=object)
    else:
        labels = np.array([int(answer.label) if answer is not None else -1 for answer in answers], dtype=np.int64)
    return labels, stages, reasons

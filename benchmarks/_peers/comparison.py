"""Numbers about finished answers and timings: how far from fp32, how fast, and who dominates whom."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks._common import Estimate, median_interval

Array = np.ndarray[Any, Any]

UNCHANGED = 1e-4
"""A relative RMSE below it is fp32's own rounding: nothing was quantized."""


@dataclass(kw_only=True)
class Finding:
    """What one method did on one model.

    Args:
        tool, method: Who; `halve` and `auto` are the ones that are judged.
        model: On what.
        problem: Why there is no result, else empty.
        note: What the method says about itself.
        disagreement: Share of inputs whose argmax differs from fp32's, in [0, 1].
        relative_rmse: sqrt(mean (q - f)^2) / std(f) of the logits.
        accuracy: Share of right answers; None without labels.
        size_bytes: Of what is deployed.
        seconds_to_quantize: Building included, fp32 export excluded.
        rows: Inputs that were compared.
        rounds: By batch size, seconds of every run, (rounds, runs).
    """

    tool: str
    method: str
    model: str
    problem: str = ""
    note: str = ""
    disagreement: float = 0.0
    relative_rmse: float = 0.0
    accuracy: float | None = None
    size_bytes: int = 0
    seconds_to_quantize: float = 0.0
    rows: int = 0
    rounds: dict[int, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.tool} {self.method}"

    @property
    def is_fp32(self) -> bool:
        return self.method == "fp32"

    @property
    def is_quantized(self) -> bool:
        """Whether there is a result, and it is not fp32 still."""
        return not self.problem and not self.is_fp32 and self.relative_rmse >= UNCHANGED

    @property
    def remark(self) -> str:
        untouched = "" if self.is_fp32 or self.is_quantized else "nothing was quantized"
        return "; ".join(part for part in (untouched, self.note) if part)

    def p50(self, batch: int) -> float:
        return float(np.median(self.rounds[batch]))

    def p95(self, batch: int) -> float:
        return float(np.quantile(self.rounds[batch], 0.95))

    def values(self) -> dict[str, float | str | Estimate]:
        """Return what belongs in the file; latencies as the median of each round's median, in seconds."""
        values: dict[str, float | str | Estimate] = {
            "disagreement": self.disagreement,
            "relative_rmse": self.relative_rmse,
            "size_bytes": self.size_bytes,
            "seconds_to_quantize": self.seconds_to_quantize,
        }
        values |= {} if self.accuracy is None else {"accuracy": self.accuracy}
        values |= {"remark": self.remark} if self.remark else {}
        for batch, seconds in self.rounds.items():
            values[f"p50_seconds_batch_{batch}"] = median_interval(np.median(seconds, axis=1).tolist())
            values[f"p95_seconds_batch_{batch}"] = self.p95(batch)
        return values

    def cells(self, batches: Sequence[int]) -> list[str]:
        """Return the row of a table, behind names and remark."""
        accuracy = "" if self.accuracy is None else f"{100 * self.accuracy:.2f}"
        cells = [f"{100 * self.disagreement:.2f}", f"{self.relative_rmse:.4f}", accuracy]
        cells += [f"{self.size_bytes / 1e6:.2f}", f"{self.seconds_to_quantize:.1f}"]
        for batch in batches:
            timed = batch in self.rounds
            cells += [f"{1e3 * self.p50(batch):.3f}", f"{1e3 * self.p95(batch):.3f}"] if timed else ["", ""]
        return cells


def relative_rmse(logits: Array, *, fp32: Array) -> float:
    """Return sqrt(mean (q - f)^2) / std(f), over all logits."""
    difference = logits.astype(np.float64) - fp32
    return float(np.sqrt(np.mean(difference**2)) / np.std(fp32, dtype=np.float64))


def disagreement(logits: Array, *, fp32: Array) -> float:
    """Return the share of rows whose argmax differs."""
    return float(np.mean(logits.argmax(axis=1) != fp32.argmax(axis=1)))


def smoothed_ratio(ours: float, theirs: float, *, n: int) -> float:
    """Return (flips + 1/2) / (flips + 1/2): a ratio of shares of n that is a number where one of them is 0."""
    return (ours * n + 0.5) / (theirs * n + 0.5)


def speed_ratio(slow: Finding, fast: Finding, *, batch: int) -> Estimate:
    """Return how many times faster the second is: ratios of medians, round by round, and their interval."""
    ratios = np.median(slow.rounds[batch], axis=1) / np.median(fast.rounds[batch], axis=1)
    return median_interval(ratios.tolist())


def is_more_accurate(peer: Finding, ours: Finding) -> bool:
    """Return whether a peer has less error and no more disagreement with fp32."""
    return peer.relative_rmse < ours.relative_rmse and peer.disagreement <= ours.disagreement


def dominating(ours: Finding, peers: Sequence[Finding]) -> list[str]:
    """Return `PEER on MODEL at batch B` for each that is more accurate and, with its whole interval, faster."""
    return [
        f"{peer.name} on {ours.model} at batch {batch}"
        for peer in peers
        if peer.is_quantized and is_more_accurate(peer, ours)
        for batch in sorted(ours.rounds)
        if batch in peer.rounds and speed_ratio(ours, peer, batch=batch).low > 1
    ]


def least_error_ratio(ours: Finding, peers: Sequence[Finding]) -> tuple[float, str] | None:
    """Return our error over the best peer's, and who that is; None if no peer has a result."""
    found = [peer for peer in peers if peer.is_quantized]
    if not found:
        return None
    best = min(found, key=lambda peer: peer.relative_rmse)
    return ours.relative_rmse / best.relative_rmse, best.name


def runs_per_round(first_seconds: float, *, seconds: float, most: int = 200) -> int:
    """Return how many runs make a round of about so many seconds: 1 to `most`."""
    return int(np.clip(seconds / first_seconds, 1, most))

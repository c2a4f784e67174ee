"""The record of a run: every change tried, what it measured, why it was kept or not, and the certificate."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from halve.core.measurement import Host, Measurement
from halve.core.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Change:
    """A proposal: this stack instead of that one.

    Args:
        lever: Name of the lever, as in the ladder.
        description: What changes, in one line for people: "int8 static, 7-bit weights".
        before: The stack it starts from.
        after: The stack it proposes.
        reason: Why the lever thinks it worth trying, or what it found out while preparing it.
    """

    lever: str
    description: str
    before: Stack
    after: Stack
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Keep or reject, in a sentence and with every number that decided it."""

    decision: Literal["keep", "reject"]
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def keep(self) -> bool:
        """Whether the change was kept."""
        return self.decision == "keep"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A change, its measurement and its verdict. A lever with nothing to offer has no measurement."""

    lever: str
    description: str
    stack: Stack | None
    measurement: Measurement | None
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class CertifiedStep:
    """One test of the fixed sequence: a kept rung against the baseline, on the certify split."""

    lever: str
    description: str
    quality_drop: float
    quality_drop_upper_bound: float
    p_value: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the certify split proves about the chosen stack.

    Args:
        holds: Whether the drop is at most the promise, at this confidence.
        quality_drop: Observed mean drop against the baseline; negative is a gain.
        quality_drop_upper_bound: One-sided upper bound of the drop at `confidence`.
        quality_drop_at_most: The promise.
        confidence: Of the bound.
        n: Examples in the certify split.
        minimum_detectable_drop: The smallest true drop that this n tells from none at all with 80 % power.
        method: Name and source of the bound.
        steps: The fixed sequence, least to most aggressive; it stops at the first failure.
    """

    holds: bool
    quality_drop: float
    quality_drop_upper_bound: float
    quality_drop_at_most: float
    confidence: float
    n: int
    minimum_detectable_drop: float
    method: str
    steps: tuple[CertifiedStep, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A prediction beside what really happened."""

    predicted: float
    replayed: float

    @property
    def error_rate(self) -> float:
        """(predicted - replayed) / replayed."""
        return (self.predicted - self.replayed) / self.replayed


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The chosen stack, really served under the real trace, beside the prediction for the same case.

    Args:
        latency_p50_seconds, latency_p99_seconds, usd_per_1k_requests: Predicted and replayed.
        n_requests: Requests sent.
        duration_seconds: Length of the replayed window.
        thinned_to_one_of: Trace and replicas were both divided by this number to fit the host; 1 if not at all.
        send_lateness_p99_seconds: How late the load generator was; latencies count from the intended time.
        client_cpu_share: Share of one core that the load generator used.
        agreeing_answers_share: Answers equal to the offline stack's.
        failed_requests: Requests without an answer.
        overhead_p50_seconds: Gateway and network time around the models, learned on another window.
        notes: What was scaled or assumed, for the report.
    """

    latency_p50_seconds: Comparison
    latency_p99_seconds: Comparison
    usd_per_1k_requests: Comparison
    n_requests: int
    duration_seconds: float
    thinned_to_one_of: int
    send_lateness_p99_seconds: float
    client_cpu_share: float
    agreeing_answers_share: float
    failed_requests: int
    overhead_p50_seconds: float
    predicted: Measurement
    replayed: Measurement
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished optimization.

    Args:
        baseline, final: On the certify split, full planned fleet, simulated from measured tables.
        saving_rate: 1 - final / baseline cost.
        rungs: Everything tried, in order, on the search split.
        assumptions: What the figures rest on, in sentences: repeats, instance speeds, scaling.
        commands: Exact commands that reproduce the run.
        stack_path, report_path: Written results, relative to the run folder.
        seconds: Wall time of the run that finished it.
    """

    schema: Literal["halve.run-record/1"] = "halve.run-record/1"
    name: str
    baseline: Measurement
    final: Measurement
    baseline_stack: Stack
    final_stack: Stack
    saving_rate: float
    certificate: Certificate
    rungs: tuple[Rung, ...]
    replay: Replay | None
    latency_p99_at_most_seconds: float
    assumptions: tuple[str, ...]
    commands: tuple[str, ...]
    host: Host
    seed: int
    stack_path: str = "stack.yaml"
    report_path: str = "report.html"
    seconds: float = 0.0

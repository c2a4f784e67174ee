"""The nouns of a workload: what is asked, what a right answer is, when requests arrive, what is promised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, WorkloadError

Payload = NDArray[np.float32] | str
"""What a model is asked: a tensor without batch axis, or a text."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Repeats = Literal["observed", "declared", "none"]
"""Where repeated requests come from: the user's log; a popularity law the user stated; or nowhere."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it arrives."""

    id: str
    payload: Payload
    arrival_seconds: float = 0.0
    tenant: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A payload with its reference: the class index (or text) that a right answer equals."""

    payload: Payload
    reference: int | str


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """When requests arrive, and which example each of them asks.

    Args:
        arrival_seconds: float64 (n,), from 0, sorted; equal times are allowed (two requests at once).
        content: int64 (n,): two arrivals with the same number are the same request, byte for byte.
            Without observed or declared repeats every number is unique, so no cache can ever hit.
        example: int64 (n,): number of the example that stands for this arrival; it is taken modulo the
            examples of a split. Several arrivals may stand on one example without being repeats.
        duration_seconds: Length of the observation, at least the last arrival; money is counted over it.
        repeats: Where repeats come from; printed in the report.
        source: What this is, for people: file, generator, scale.
    """

    arrival_seconds: FloatArray
    content: IntArray
    example: IntArray
    duration_seconds: float
    repeats: Repeats = "none"
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.arrival_seconds)
        if n == 0:
            raise WorkloadError("traffic must hold at least 1 arrival. Got 0.")
        if len(self.content) != n or len(self.example) != n:
            rule = f"as long as arrival_seconds, {n}"
            raise InvalidParameterError("content and example", rule=rule, value=(len(self.content), len(self.example)))
        steps = np.diff(self.arrival_seconds)
        if not np.all(np.isfinite(self.arrival_seconds)) or self.arrival_seconds[0] < 0 or np.any(steps < 0):
            raise InvalidParameterError("arrival_seconds", rule="finite, sorted, from 0", value="an array that is not")
        if not self.duration_seconds >= self.arrival_seconds[-1] or self.duration_seconds <= 0:
            rule = f"positive and at least the last arrival, {float(self.arrival_seconds[-1])}"
            raise InvalidParameterError("duration_seconds", rule=rule, value=self.duration_seconds)

    @property
    def n_requests(self) -> int:
        """Number of arrivals."""
        return len(self.arrival_seconds)

    @property
    def mean_requests_per_second(self) -> float:
        """Arrivals over the whole duration."""
        return self.n_requests / self.duration_seconds

    def peak_requests_per_second(self, *, window_seconds: float = 1.0) -> float:
        """Return the rate of the busiest window of that length, windows laid end to end from 0."""
        bins = np.floor_divide(self.arrival_seconds, window_seconds).astype(np.int64)
        return float(np.bincount(bins).max() / window_seconds)

    def window(self, *, start_seconds: float, length_seconds: float) -> "Traffic":
        """Return the arrivals of [start, start + length), moved to start at 0.

        Raises:
            WorkloadError: If no request arrives in that window.
        """
        low, high = np.searchsorted(self.arrival_seconds, [start_seconds, start_seconds + length_seconds])
        return Traffic(
            arrival_seconds=self.arrival_seconds[low:high] - start_seconds,
            content=self.content[low:high],
            example=self.example[low:high],
            duration_seconds=length_seconds,
            repeats=self.repeats,
            source=f"{self.source}, {length_seconds:g} s from {start_seconds:g} s",
        )

    def every(self, step: int) -> "Traffic":
        """Return one arrival in `step`, evenly: the share of the load that one of `step` equal fleets sees."""
        if step < 1:
            raise InvalidParameterError("step", rule="at least 1", value=step)
        return Traffic(
            arrival_seconds=self.arrival_seconds[::step],
            content=self.content[::step],
            example=self.example[::step],
            duration_seconds=self.duration_seconds,
            repeats=self.repeats,
            source=self.source if step == 1 else f"{self.source}, 1 of {step} requests",
        )


Augment = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes and returns one batch of named torch tensors; draws from torch's default generator."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What levers may train on: none of the examples, so that no score is of something that was learned.

    Args:
        payloads: What is asked; n of them.
        references: int64 (n,): class indices, -1 where nobody has labelled it. Only the teacher's answers are needed.
        sha256: Of the payloads in their order: what a teacher was asked.
        left_out: How many were given and left out because they stand among the examples too.
        augment: Changes one batch of named tensors in a way that changes no right answer; None leaves them.
        epochs: Passes of every training; None leaves it to the lever.
    """

    payloads: Sequence[Payload]
    references: IntArray
    sha256: str
    left_out: int = 0
    augment: Augment | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if len(self.payloads) == 0:
            raise WorkloadError("training must hold at least 1 payload that is no example. Got 0.")
        if len(self.references) != len(self.payloads):
            rule = f"as long as the payloads, {len(self.payloads)}"
            raise InvalidParameterError("training references", rule=rule, value=len(self.references))
        if np.any(self.references < -1):
            rule = "class indices from 0, or -1 for no label"
            raise InvalidParameterError("training references", rule=rule, value=int(np.min(self.references)))

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The two promises, and how sure we must be of the first.

    Args:
        quality_drop_at_most: Mean score lost against the baseline, in score units (0.01 is one point), [0, 1).
        confidence: Probability that a certificate is right, in (0.5, 1).
        latency_p99_seconds: 99 % of requests are answered within this time, > 0.
    """

    quality_drop_at_most: float = 0.01
    confidence: float = 0.95
    latency_p99_seconds: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.quality_drop_at_most < 1:
            value = self.quality_drop_at_most
            raise InvalidParameterError("objective.quality_drop_at_most", rule="in [0, 1)", value=value)
        if not 0.5 < self.confidence < 1:
            raise InvalidParameterError("objective.confidence", rule="in (0.5, 1)", value=self.confidence)
        if not 0 < self.latency_p99_seconds < float("inf"):
            value = self.latency_p99_seconds
            raise InvalidParameterError("objective.latency_p99_seconds", rule="positive and finite", value=value)


Split = Literal["search", "certify"]
"""`search` is looked at as often as we like; `certify` once, by the certificate."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Everything a user brings but the model and the prices.

    Args:
        name: For folders and titles.
        search: Examples that levers may tune on.
        certify: Examples that only the certificate sees. No payload occurs in both.
        labels: Class names in the order of the model's outputs, if the task is classification.
        training: What may be trained on; None if the user gave nothing, and then no lever trains.
    """

    name: str
    search: Sequence[Example]
    certify: Sequence[Example]
    traffic: Traffic
    objective: Objective
    labels: tuple[str, ...] = ()
    training: TrainingSet | None = None

    def examples(self, split: Split) -> Sequence[Example]:
        """Return the examples of one split."""
        return self.search if split == "search" else self.certify

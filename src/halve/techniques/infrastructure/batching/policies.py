"""Batch sizes that earn their place, and how long a replica may wait to fill them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite

from halve.errors import InvalidParameterError

LEAST_GAIN = 0.03
"""A size is worth trying if it saves this share of the seconds per request of the last size kept."""

SLACK_SHARES = (0.25, 0.5)
"""Waits to try beside zero, as shares of the time that the promise leaves beyond the batch itself."""


@dataclass(frozen=True, kw_only=True)
class CandidatePolicy:
    """A batch is taken when `max_batch_size` wait or the oldest has waited `max_wait_seconds`."""

    max_batch_size: int
    max_wait_seconds: float


@dataclass(frozen=True, kw_only=True)
class _Option:
    policy: CandidatePolicy
    seconds: float

    @property
    def capacity(self) -> float:
        return capacity_requests_per_second(batch_size=self.policy.max_batch_size, seconds=self.seconds)

    @property
    def slowest_when_idle(self) -> float:
        return self.policy.max_wait_seconds + self.seconds


def capacity_requests_per_second(*, batch_size: int, seconds: float) -> float:
    """Return the highest rate that one replica sustains: full batches back to back.

    mu(b) = b / s(b). A queue served in batches of at most b is stable if and only if its arrival rate is below
    mu(b) per replica (for s(b) / b falling in b). With s(b) = fixed + each * b, mu rises towards 1 / each: what
    batching can save is the fixed part.

    Source: Bailey 1954, "On Queueing Processes with Bulk Service", J. R. Statist. Soc. B 16(1), for stability;
    Inoue 2021, "Queueing Analysis of GPU-Based Inference Servers with Dynamic Batching", arXiv:1912.06322, for s(b).

    Args:
        batch_size: b, >= 1.
        seconds: s(b), finite, > 0.

    Raises:
        InvalidParameterError: If a value is outside its range.
    """
    if batch_size < 1:
        raise InvalidParameterError("batch_size", rule="at least 1", value=batch_size)
    if not 0 < seconds < inf:
        raise InvalidParameterError("seconds", rule="positive and finite", value=seconds)
    return batch_size / seconds


def candidate_policies(
    *, batch_sizes: Sequence[int], seconds: Sequence[float], p99_at_most_seconds: float
) -> tuple[CandidatePolicy, ...]:
    """Return the policies worth simulating, smaller batches first, shorter waits first.

    A size is kept if its batch fits in the promise, s(b) <= promise, and its capacity b / s(b) beats that of
    the last smaller size kept: at least 3 % fewer seconds per request. For each size the waits are zero and
    1/4 and 1/2 of promise - s(b); a batch of 1 is full at once, so it never waits. A policy is dropped
    if another one has at least its capacity, gathers at least as long, and answers a request that finds the
    replica idle no later (wait + s(b)), and is better in one of the three.

    Source: capacity as in `capacity_requests_per_second`.

    Args:
        batch_sizes: Sizes measured, rising, each >= 1.
        seconds: Seconds of a batch of each size, positive and finite.
        p99_at_most_seconds: The promise, > 0.

    Returns:
        Empty if not even the smallest batch fits in the promise.

    Raises:
        InvalidParameterError: If a value breaks its rule.
    """
    sizes, times = [int(size) for size in batch_sizes], [float(second) for second in seconds]
    _check(sizes, times, p99_at_most_seconds)
    options: list[_Option] = []
    per_request = inf
    for size, time in zip(sizes, times, strict=True):
        if time > p99_at_most_seconds or time / size > (1 - LEAST_GAIN) * per_request:
            continue
        per_request = time / size
        options += [
            _Option(policy=CandidatePolicy(max_batch_size=size, max_wait_seconds=wait), seconds=time)
            for wait in _waits(size, slack_seconds=p99_at_most_seconds - time)
        ]
    return tuple(option.policy for option in options if not any(_dominates(other, option) for other in options))


def _waits(size: int, *, slack_seconds: float) -> tuple[float, ...]:
    if size == 1 or slack_seconds == 0:
        return (0.0,)
    return (0.0, *(share * slack_seconds for share in SLACK_SHARES))


def _dominates(other: _Option, option: _Option) -> bool:
    """Return whether `other` is nowhere worse and somewhere better."""
    gains = (
        other.capacity - option.capacity,
        other.policy.max_wait_seconds - option.policy.max_wait_seconds,
        option.slowest_when_idle - other.slowest_when_idle,
    )
    return min(gains) >= 0 and max(gains) > 0


def _check(sizes: Sequence[int], times: Sequence[float], promise: float) -> None:
    if not sizes or sizes[0] < 1 or any(left >= right for left, right in pairwise(sizes)):
        raise InvalidParameterError("batch_sizes", rule="rising from at least 1", value=tuple(sizes))
    if len(times) != len(sizes):
        raise InvalidParameterError("seconds", rule=f"one for each of the {len(sizes)} sizes", value=len(times))
    for time in times:
        if not (isfinite(time) and time > 0):
            raise InvalidParameterError("seconds", rule="positive and finite", value=time)
    if not 0 < promise < inf:
        raise InvalidParameterError("p99_at_most_seconds", rule="positive and finite", value=promise)

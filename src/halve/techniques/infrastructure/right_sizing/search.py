"""Search the cheapest replica counts that keep a latency promise. What a count does is asked of the caller."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import ceil, inf

from halve.errors import InvalidParameterError

Counts = tuple[int, ...]

MOST_EXCHANGED = 6
"""Replicas that one station gives up in one exchange: more tries find little more."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one vector of replica counts does.

    Args:
        latency_p99_seconds: Of whole requests.
        wait_p99_seconds: Waiting for a replica, per station.
    """

    latency_p99_seconds: float
    wait_p99_seconds: tuple[float, ...]


def fewest_replicas(
    *,
    lowest: Sequence[int],
    vcpus_each: Sequence[int],
    evaluate: Callable[[Counts], Load],
    p99_at_most_seconds: float,
    most_replicas: int = 256,
) -> Counts | None:
    """Return the cheapest replica counts found that keep the promise, or None if no counts do.

    Cost is sum(counts * vcpus_each). The search trusts that more replicas are never slower:

    1. `most_replicas` everywhere leaves no one waiting. If that misses, service alone is too slow: None.
    2. Grow: while the promise is missed, add to the station with the longest wait per vCPU, in steps that double.
    3. Shrink: in steps that halve, take from the station where a saved vCPU costs the least latency.
    4. Exchange: up to 6 replicas less here for cheaper ones there, as long as that saves; then shrink again.

    The result keeps the promise, and one replica less at any station (above `lowest`) breaks it. It is the
    cheapest such vector nearly always, not always. Each vector is evaluated once; evaluations grow with
    stations^2 * log(replicas).

    Args:
        lowest: Fewest replicas per station, each >= 1; the nearer to the answer, the quicker.
        vcpus_each: vCPUs of one replica, per station, each >= 1.
        evaluate: What a vector does; must be deterministic.
        p99_at_most_seconds: The promise, > 0.
        most_replicas: Upper bound per station, >= 1.

    Raises:
        InvalidParameterError: If a value breaks its rule.
    """
    _check(lowest, vcpus_each=vcpus_each, p99_at_most_seconds=p99_at_most_seconds, most_replicas=most_replicas)
    start = tuple(lowest)
    most = tuple(most_replicas for _ in lowest)
    fleet = _Fleet(lowest=start, vcpus_each=tuple(vcpus_each), evaluate=evaluate, promise=p99_at_most_seconds)
    if max(start) > most_replicas or not fleet.keeps(most):
        return None
    grown, largest_step = _grow(fleet, start, most_replicas=most_replicas)
    counts = _shrink(fleet, grown, largest_step=largest_step)
    while (cheaper := next(fleet.exchanges(counts, most_replicas=most_replicas), None)) is not None:
        counts = _shrink(fleet, cheaper, largest_step=1)
    return counts


class _Fleet:
    """What is known about replica vectors so far."""

    def __init__(
        self, *, lowest: Counts, vcpus_each: Counts, evaluate: Callable[[Counts], Load], promise: float
    ) -> None:
        self.lowest, self.vcpus_each, self.promise = lowest, vcpus_each, promise
        self._evaluate = evaluate
        self._loads: dict[Counts, Load] = {}

    def load(self, counts: Counts) -> Load:
        if counts not in self._loads:
            self._loads[counts] = self._evaluate(counts)
        return self._loads[counts]

    def keeps(self, counts: Counts) -> bool:
        return self.load(counts).latency_p99_seconds <= self.promise

    def smaller(self, counts: Counts, *, step: int) -> Iterator[tuple[float, int, Counts]]:
        """Yield (latency lost per vCPU saved, station, counts) of each station with `step` fewer, if that keeps."""
        before = self.load(counts).latency_p99_seconds
        for station, least in enumerate(self.lowest):
            if counts[station] - step < least:
                continue
            fewer = _with(counts, station, -step)
            if self.keeps(fewer):
                lost = self.load(fewer).latency_p99_seconds - before
                yield lost / (step * self.vcpus_each[station]), -self.vcpus_each[station], fewer

    def exchanges(self, counts: Counts, *, most_replicas: int) -> Iterator[Counts]:
        """Yield cheaper vectors that keep the promise: a few replicas less at one station, more at another."""
        for giver, taker in permutations(range(len(counts)), 2):
            for given in range(1, min(MOST_EXCHANGED, counts[giver] - self.lowest[giver]) + 1):
                taken = ceil(given * self.vcpus_each[giver] / self.vcpus_each[taker]) - 1
                taken = min(taken, most_replicas - counts[taker])
                other = _with(_with(counts, giver, -given), taker, taken)
                if taken >= 1 and self.keeps(other):
                    yield other


def _grow(fleet: _Fleet, counts: Counts, *, most_replicas: int) -> tuple[Counts, int]:
    """Return counts that keep the promise, and the largest step it took to get there."""
    steps = [1] * len(counts)
    while not fleet.keeps(counts):
        waits = fleet.load(counts).wait_p99_seconds
        worst = max(
            range(len(counts)),
            key=lambda station: waits[station] / fleet.vcpus_each[station] if counts[station] < most_replicas else -inf,
        )
        counts = _with(counts, worst, min(steps[worst], most_replicas - counts[worst]))
        steps[worst] *= 2
    return counts, max(steps)


def _shrink(fleet: _Fleet, counts: Counts, *, largest_step: int) -> Counts:
    """Return counts of which no station can give up one replica."""
    step = largest_step
    while step >= 1:
        best = min(fleet.smaller(counts, step=step), default=None)
        if best is None:
            step //= 2
        else:
            counts = best[2]
    return counts


def _with(counts: Counts, station: int, change: int) -> Counts:
    return (*counts[:station], counts[station] + change, *counts[station + 1 :])


def _check(lowest: Sequence[int], *, vcpus_each: Sequence[int], p99_at_most_seconds: float, most_replicas: int) -> None:
    if not lowest or min(lowest) < 1:
        raise InvalidParameterError("lowest", rule="at least 1 for each of at least one station", value=tuple(lowest))
    if len(vcpus_each) != len(lowest) or min(vcpus_each) < 1:
        rule = f"at least 1 for each of the {len(lowest)} stations"
        raise InvalidParameterError("vcpus_each", rule=rule, value=tuple(vcpus_each))
    if not 0 < p99_at_most_seconds < inf:
        raise InvalidParameterError("p99_at_most_seconds", rule="positive and finite", value=p99_at_most_seconds)
    if most_replicas < 1:
        raise InvalidParameterError("most_replicas", rule="at least 1", value=most_replicas)

"""One climb: every lever proposes, every proposal is fitted, measured and judged, the cheapest that passes stays."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from halve.core import Bench, Change, Gate, Lever, Measurement, Rung, Stack, Verdict

_log = logging.getLogger("halve.optimize")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A proposal that passed the gate, kept or not: what a certificate may fall back to."""

    lever: str
    description: str
    stack: Stack
    measurement: Measurement


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Where a climb ended, and what passed on the way."""

    stack: Stack
    measurement: Measurement
    passed: tuple[Trial, ...]


def climb(
    start: Stack,
    *,
    levers: Sequence[Lever],
    bench: Bench,
    gate: Gate,
    baseline: Measurement,
    record: Callable[[Rung], None],
    label: str | None = None,
) -> Climb:
    """Try every lever once, in order; a rejected change leaves the stack as it was.

    Args:
        baseline: What quality is always compared with.
        record: Called with each rung as soon as it is judged.
        label: Recorded as the lever's name instead of its own (`joint_search`).
    """
    best, best_measured = start, bench.measure(start)
    passed: list[Trial] = []
    for lever in levers:
        name = label or lever.name
        trials = list(_trials(lever, best, bench))
        verdicts = [_judge(trial, gate, baseline, best_measured, name) for trial in trials]
        winner = _cheapest(verdicts)
        for index, (trial, measured, verdict) in enumerate(verdicts):
            if measured is None or not verdict.keep:
                _record(record, name, trial, measured, verdict)
                continue
            description = trial.change.description
            passed.append(Trial(lever=name, description=description, stack=trial.stack, measurement=measured))
            if winner is not None and index != winner:
                _record(record, name, trial, measured, _outdone(verdict, verdicts[winner][0]))
                continue
            _record(record, name, trial, measured, verdict)
            best, best_measured = trial.stack, measured
        if not trials and label is None:
            verdict = Verdict(decision="reject", reason=lever.nothing(best, bench))
            record(Rung(lever=name, description="nothing to propose", stack=None, measurement=None, verdict=verdict))
    return Climb(stack=best, measurement=best_measured, passed=tuple(passed))


@dataclass(frozen=True, kw_only=True)
class _Trial:
    change: Change
    stack: Stack
    measured: Measurement | None


def _trials(lever: Lever, stack: Stack, bench: Bench) -> Iterator[_Trial]:
    for change in lever.propose(stack, bench):
        fitted = bench.fit(change.after)
        if fitted is None:
            yield _Trial(change=change, stack=change.after, measured=None)
        else:
            named = replace(fitted, name=stack.name)
            yield _Trial(change=change, stack=named, measured=bench.measure(named))


_Judged = tuple[_Trial, Measurement | None, Verdict]


def _judge(trial: _Trial, gate: Gate, baseline: Measurement, before: Measurement, name: str) -> _Judged:
    if trial.measured is None:
        promise = gate.objective.latency_p99_seconds
        reason = f"no number of replicas answers 99 % of requests within {promise:g} s"
        return trial, None, Verdict(decision="reject", reason=reason, numbers={"latency_p99_at_most_seconds": promise})
    verdict = gate.judge(baseline=baseline, before=before, after=trial.measured)
    _log.info("%s: %s: %s: %s", name, trial.change.description, verdict.decision, verdict.reason)
    return trial, trial.measured, verdict


def _cheapest(verdicts: Sequence[_Judged]) -> int | None:
    """Return the position of the cheapest kept trial; the earliest, so the most cautious, of equals."""
    kept = [
        (measured.usd_per_1k_requests, index)
        for index, (_, measured, verdict) in enumerate(verdicts)
        if measured is not None and verdict.keep
    ]
    return min(kept)[1] if kept else None


def _outdone(verdict: Verdict, winner: _Trial) -> Verdict:
    reason = f"passes, but {winner.change.description} is cheaper ({verdict.reason})"
    if winner.measured is not None and verdict.numbers.get("usd_after") == winner.measured.usd_per_1k_requests:
        reason = f"passes, but {winner.change.description} costs the same and stands first ({verdict.reason})"
    return replace(verdict, decision="reject", reason=reason)


def _record(
    record: Callable[[Rung], None], name: str, trial: _Trial, measured: Measurement | None, verdict: Verdict
) -> None:
    description = trial.change.description
    record(Rung(lever=name, description=description, stack=trial.stack, measurement=measured, verdict=verdict))

"""The whole walk: ladder, joint search, certificate. Decides by what it is passed; measures nothing itself."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from halve.core import Bench, Certificate, Gate, Lever, Measurement, Progress, Rung, Stack
from halve.optimize.ladder import Trial, climb
from halve.optimize.sequence import certification_sequence

_log = logging.getLogger("halve.optimize")

JOINT_SEARCH = "joint_search"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a walk found. Both measurements are on the certify split."""

    baseline_stack: Stack
    final_stack: Stack
    baseline: Measurement
    final: Measurement
    certificate: Certificate
    rungs: tuple[Rung, ...]

    @property
    def saving_rate(self) -> float:
        """1 - final / baseline cost; negative if the final stack is dearer."""
        return 1 - self.final.usd_per_1k_requests / self.baseline.usd_per_1k_requests


class Optimizer:
    """Walks the levers and certifies where they led.

    Args:
        bench: Measures; see `core.Bench`.
        gate: Judges and certifies.
        ladder: Levers in the order of the rungs, low risk first.
        joint: Levers that re-tune the finished stack together, in sweeps, until nothing gets cheaper.
        record: Called with every rung as soon as it is judged.
        progress: Where bars go.
        most_sweeps: Of the joint search.
    """

    def __init__(
        self,
        *,
        bench: Bench,
        gate: Gate,
        ladder: Sequence[Lever],
        joint: Sequence[Lever],
        record: Callable[[Rung], None],
        progress: Progress,
        most_sweeps: int = 3,
    ) -> None:
        self._bench, self._gate, self._ladder, self._joint = bench, gate, ladder, joint
        self._record_elsewhere, self._progress, self._most_sweeps = record, progress, most_sweeps
        self._rungs: list[Rung] = []

    def walk(self, baseline: Stack) -> Outcome:
        """Return the cheapest certified stack that the levers can make of the baseline."""
        measured = self._bench.measure(baseline)
        stack, passed = self._climb_ladder(baseline, measured)
        passed += self._search_jointly(stack, measured)
        certificate, final = self._certify(baseline, passed)
        return Outcome(
            baseline_stack=baseline,
            final_stack=final,
            baseline=self._bench.measure(baseline, split="certify"),
            final=self._bench.measure(final, split="certify"),
            certificate=certificate,
            rungs=tuple(self._rungs),
        )

    def _record(self, rung: Rung) -> None:
        self._rungs.append(rung)
        self._record_elsewhere(rung)

    def _climb_ladder(self, baseline: Stack, measured: Measurement) -> tuple[Stack, list[Trial]]:
        stack = baseline
        passed: list[Trial] = []
        with self._progress.task("ladder", total=len(self._ladder)) as advance:
            for lever in self._ladder:
                reached = climb(
                    stack, levers=[lever], bench=self._bench, gate=self._gate, baseline=measured, record=self._record
                )
                stack = reached.stack
                passed += reached.passed
                advance()
        return stack, passed

    def _search_jointly(self, stack: Stack, measured: Measurement) -> list[Trial]:
        """Sweep the re-tuning levers: each sees what the others changed, as a new model changes the thresholds."""
        passed: list[Trial] = []
        with self._progress.task("joint search", total=self._most_sweeps) as advance:
            for _ in range(self._most_sweeps):
                reached = climb(
                    stack,
                    levers=self._joint,
                    bench=self._bench,
                    gate=self._gate,
                    baseline=measured,
                    record=self._record,
                    label=JOINT_SEARCH,
                )
                passed += reached.passed
                advance()
                if reached.stack == stack:
                    break
                stack = reached.stack
        return passed

    def _certify(self, baseline: Stack, passed: Sequence[Trial]) -> tuple[Certificate, Stack]:
        sequence = certification_sequence(passed, drop_upper_bound=self._drop_upper_bound)
        steps = [
            (trial.lever, trial.description, self._bench.measure(trial.stack, split="certify")) for trial in sequence
        ]
        certificate = self._gate.certify(baseline=self._bench.measure(baseline, split="certify"), steps=steps)
        certified = sum(step.passed for step in certificate.steps)
        _log.info("certified %d of %d steps", certified, len(steps))
        return certificate, self._fast_enough(sequence[certified - 1].stack) if certified else baseline

    def _fast_enough(self, stack: Stack) -> Stack:
        """Return the stack; with its replicas counted anew if the certify examples need more of them.

        Replicas change no answer, so the certificate stays. What fitted the search examples fits these with some
        number of replicas; if a single request is too slow, the stack stays and its measured p99 says so.
        """
        promise = self._gate.objective.latency_p99_seconds
        if self._bench.measure(stack, split="certify").latency.p99_seconds <= promise:
            return stack
        return self._bench.fit(stack, split="certify") or stack

    def _drop_upper_bound(self, measurement: Measurement) -> float:
        return self._bench.drop_upper_bound(np.asarray(measurement.scores))

"""Keep or reject a change, and certify the result. Measures nothing: it reads scores, costs and latencies."""

from collections.abc import Sequence
from typing import final

import numpy as np

from halve.core import Certificate, CertifiedStep, FloatArray, Measurement, Objective, Split, Verdict
from halve.errors import InvalidParameterError
from halve.gate.budget import ErrorBudget
from halve.gate.paired import BETTING_METHOD, EXACT_METHOD, PairedDrop, compare, drop_lower_bound
from halve.gate.power import examples_needed, minimum_detectable_drop
from halve.units import format_percent, format_seconds, format_usd

LEAST_SAVING_RATE = 0.01
"""A change must save this share of the cost: less is within the noise of timings, and not worth a moving part."""


@final
class PairedGate:
    """Judges changes and certifies stacks by paired comparison with the baseline; a `core.Gate`.

    Args:
        objective: The promises.
        is_binary: Whether every score is 0 or 1 by definition of the metric; then bounds are exact.
    """

    def __init__(self, *, objective: Objective, is_binary: bool = True) -> None:
        self.objective = objective
        self.budget = ErrorBudget.of(objective)
        self._is_binary = is_binary

    def judge(self, *, baseline: Measurement, before: Measurement, after: Measurement) -> Verdict:
        """Keep a change that saves 1 % or more of `before`, is fast enough, and drops provably little.

        Quality is judged against the baseline on the search split: the upper bound of the drop, at the objective's
        confidence, must be at most the promise. This is a filter, not a guarantee (see `ErrorBudget`).

        Raises:
            InvalidParameterError: If a measurement is not of the search split, or scores do not pair up.
        """
        _check_split("search", baseline, before, after)
        confidence = 1 - self.budget.search_decision
        drop = self._compare(baseline, after, confidence=confidence)
        numbers = _numbers(before, after, drop)
        if _same_figures(before, after):
            return Verdict(decision="reject", reason="measures exactly as before: nothing changed", numbers=numbers)
        reasons = self._objections(baseline, before, after, drop)
        if reasons:
            return Verdict(decision="reject", reason="; ".join(reasons), numbers=numbers)
        return Verdict(decision="keep", reason=self._praise(before, after, drop), numbers=numbers)

    def certify(self, *, baseline: Measurement, steps: Sequence[tuple[str, str, Measurement]]) -> Certificate:
        """Test steps (lever, description, measurement) in the given order on certify scores; stop at the first failure.

        Fixed-sequence testing: every test at the full alpha, see `ErrorBudget`. The certificate speaks for the last
        step that passed; without steps it holds trivially for the baseline; if the first fails, it does not hold
        and shows the bound of that one.

        Raises:
            InvalidParameterError: If a measurement is not of the certify split, or scores do not pair up.
        """
        _check_split("certify", baseline, *(measured for _, _, measured in steps))
        confidence = 1 - self.budget.certificate
        tested: list[tuple[CertifiedStep, PairedDrop]] = []
        for lever, description, measured in steps:
            drop = self._compare(baseline, measured, confidence=confidence)
            step = CertifiedStep(
                lever=lever,
                description=description,
                quality_drop=drop.drop,
                quality_drop_upper_bound=drop.upper_bound,
                p_value=drop.p_value,
                passed=drop.upper_bound <= self.objective.quality_drop_at_most,
            )
            tested.append((step, drop))
            if not step.passed:
                break
        return self._certificate(tested, n=len(baseline.scores))

    def _certificate(self, tested: Sequence[tuple[CertifiedStep, PairedDrop]], *, n: int) -> Certificate:
        passed = [drop for step, drop in tested if step.passed]
        shown = passed[-1] if passed else tested[0][1] if tested else None
        return Certificate(
            holds=bool(passed) or not tested,
            quality_drop=shown.drop if shown else 0.0,
            quality_drop_upper_bound=shown.upper_bound if shown else 0.0,
            quality_drop_at_most=self.objective.quality_drop_at_most,
            confidence=self.objective.confidence,
            n=n,
            minimum_detectable_drop=minimum_detectable_drop(
                n, discordance=shown.discordance if shown else 0.0, confidence=self.objective.confidence
            ),
            method=EXACT_METHOD if self._is_binary else BETTING_METHOD,
            steps=tuple(step for step, _ in tested),
        )

    def _compare(self, baseline: Measurement, candidate: Measurement, *, confidence: float) -> PairedDrop:
        margin = self.objective.quality_drop_at_most
        first, second = _scores(baseline), _scores(candidate)
        return compare(first, second, margin=margin, confidence=confidence, is_binary=self._is_binary)

    def _objections(
        self, baseline: Measurement, before: Measurement, after: Measurement, drop: PairedDrop
    ) -> list[str]:
        objections = []
        saving = _saving_rate(before, after)
        prices = f"{_price(before)} -> {_price(after)} per 1,000"
        if saving < 0:
            objections.append(f"costs {format_percent(-saving)} more ({prices})")
        elif saving < LEAST_SAVING_RATE:
            objections.append(f"saves {format_percent(saving)} ({prices}), less than {_percent(LEAST_SAVING_RATE)}")
        promise = self.objective.latency_p99_seconds
        if not after.latency.p99_seconds <= promise:
            taken = format_seconds(after.latency.p99_seconds)
            objections.append(f"p99 {taken} is over the promised {format_seconds(promise)}")
        if not drop.upper_bound <= self.objective.quality_drop_at_most:
            objections.append(self._quality_objection(baseline, after, drop))
        return objections

    def _quality_objection(self, baseline: Measurement, after: Measurement, drop: PairedDrop) -> str:
        margin, confidence = self.objective.quality_drop_at_most, 1 - self.budget.search_decision
        lowest = drop_lower_bound(_scores(baseline), _scores(after), confidence=confidence, is_binary=self._is_binary)
        if lowest > margin:
            return (
                f"provably worse than promised: drop {_points(drop.drop)} points (at least {_points(lowest)} at "
                f"{_percent(confidence)}), {_points(margin)} allowed"
            )
        seen = f"drop {_points(drop.drop)} points (at most {_points(drop.upper_bound)} at {_percent(confidence)})"
        if drop.drop >= margin:
            return f"{seen}, {_points(margin)} allowed"
        need = examples_needed(
            margin,
            confidence=confidence,
            discordance=min(drop.discordance, 1.0),
            drop=drop.drop,
            is_binary=self._is_binary,
        )
        return f"{seen}, {_points(margin)} allowed: {drop.n:,} examples are too few, about {need:,} are needed"

    def _praise(self, before: Measurement, after: Measurement, drop: PairedDrop) -> str:
        saving = format_percent(_saving_rate(before, after))
        taken, promise = format_seconds(after.latency.p99_seconds), format_seconds(self.objective.latency_p99_seconds)
        bound = f"at most {_points(drop.upper_bound)} at {_percent(self.objective.confidence)}"
        return (
            f"saves {saving} ({_price(before)} -> {_price(after)} per 1,000), "
            f"drop {_points(drop.drop)} points ({bound}), p99 {taken} of {promise}"
        )


def _numbers(before: Measurement, after: Measurement, drop: PairedDrop) -> dict[str, float]:
    return {
        "usd_before": before.usd_per_1k_requests,
        "usd_after": after.usd_per_1k_requests,
        "saving_rate": _saving_rate(before, after),
        "quality_before": before.quality,
        "quality_after": drop.candidate,
        "quality_baseline": drop.baseline,
        "quality_drop": drop.drop,
        "quality_drop_upper_bound": drop.upper_bound,
        "latency_p99_seconds": after.latency.p99_seconds,
        "n_pairs": float(drop.n),
        "p_value": drop.p_value,
    }


def _saving_rate(before: Measurement, after: Measurement) -> float:
    """Return 1 - after / before; 0 if `before` is free, so that nothing can be saved on it."""
    if before.usd_per_1k_requests <= 0:
        return 0.0
    return 1 - after.usd_per_1k_requests / before.usd_per_1k_requests


def _same_figures(before: Measurement, after: Measurement) -> bool:
    return (before.scores, before.ledger, before.latency) == (after.scores, after.ledger, after.latency)


def _check_split(split: Split, *measurements: Measurement) -> None:
    for measured in measurements:
        if measured.split != split:
            raise InvalidParameterError(f"split of {measured.stack!r}", rule=repr(split), value=measured.split)


def _scores(measured: Measurement) -> FloatArray:
    return np.asarray(measured.scores, dtype=np.float64)


def _price(measured: Measurement) -> str:
    return format_usd(measured.usd_per_1k_requests)


def _points(share: float) -> str:
    """Return a share as points, 0.0012 as 0.12; never -0.00."""
    return f"{round(100 * share, 2) + 0.0:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"

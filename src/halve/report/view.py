"""What every form of the report shows, in words and rows: the arithmetic of layout, nothing measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from halve.core import Measurement, Run, Rung
from halve.units import format_percent, format_usd

Tone = Literal["good", "neutral", "bad"]


@dataclass(frozen=True, kw_only=True)
class RungRow:
    """One rung as a line of the waterfall.

    Args:
        usd_before: Cost of the step it started from: the kept rung before it, or the baseline.
        usd, quality, p99_seconds: None where the lever had nothing to offer, so nothing was measured.
        saving_rate: Share of `usd_before` saved; negative if it costs more; None if not measured.
        quality_change: Score against the baseline on the same examples, in [-1, 1].
        drop_bound: Upper bound of the quality drop that decided the verdict, if the gate stated one.
    """

    lever: str
    description: str
    reason: str
    keep: bool
    usd_before: float
    usd: float | None = None
    saving_rate: float | None = None
    quality: float | None = None
    quality_change: float | None = None
    drop_bound: float | None = None
    p99_seconds: float | None = None


def rung_rows(run: Run) -> tuple[RungRow, ...]:
    """Return one row per rung, in the order tried; each is compared with the step it started from."""
    rows = []
    usd_before = run.baseline.usd_per_1k_requests
    for rung in run.rungs:
        row = _row(run, rung, usd_before)
        rows.append(row)
        if row.keep and row.usd is not None:
            usd_before = row.usd
    return tuple(rows)


def _row(run: Run, rung: Rung, usd_before: float) -> RungRow:
    measurement, numbers = rung.measurement, rung.verdict.numbers
    if measurement is None:
        return RungRow(
            lever=rung.lever,
            description=rung.description,
            reason=rung.verdict.reason,
            keep=rung.verdict.keep,
            usd_before=usd_before,
        )
    drop = numbers.get("quality_drop")
    return RungRow(
        lever=rung.lever,
        description=rung.description,
        reason=rung.verdict.reason,
        keep=rung.verdict.keep,
        usd_before=usd_before,
        usd=measurement.usd_per_1k_requests,
        saving_rate=saving(usd_before, measurement.usd_per_1k_requests),
        quality=measurement.quality,
        quality_change=-drop if drop is not None else measurement.quality - run.baseline.quality,
        drop_bound=numbers.get("quality_drop_upper_bound"),
        p99_seconds=measurement.latency.p99_seconds,
    )


def saving(before: float, after: float) -> float | None:
    """Return the share of `before` that `after` saves; negative is dearer; None if `before` is not positive."""
    return 1 - after / before if before > 0 else None


def percent(share: float, *, digits: int = 1) -> str:
    """Return a share as a percentage, without a negative zero."""
    return format_percent(share + 0.0 if abs(share) >= 0.5 * 10 ** (-digits - 2) else 0.0, digits=digits)


def points(score: float) -> str:
    """Return a difference of scores in points, `0.31 pt`: one point is 0.01 of score."""
    value = round(score * 100, 2)
    return f"{value + 0.0:.2f} pt"


def words(score: float) -> str:
    """Return a difference of scores for a sentence, `0.31 points`."""
    return points(score).replace(" pt", " points")


def saving_words(row: RungRow) -> str:
    """Return what a change saves against the step it started from, or nothing if it was not measured."""
    if row.saving_rate is None:
        return ""
    if abs(row.saving_rate) < 0.0005:
        return "would save nothing"
    if row.saving_rate < 0:
        return f"would cost {percent(-row.saving_rate)} more"
    return f"would save {percent(row.saving_rate)}"


def kept_rungs(run: Run) -> tuple[Rung, ...]:
    """Return the rungs that were kept, in order."""
    return tuple(rung for rung in run.rungs if rung.verdict.keep)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The one sentence that everybody reads."""

    text: str
    tone: Tone


def headline(run: Run) -> Headline:
    """Return the saving in words: cheaper, dearer, or nothing kept; and whether it is certified."""
    rate = run.saving_rate
    if not kept_rungs(run):
        return Headline(text="No saving: nothing passed", tone="neutral")
    if rate < -0.0005:
        return Headline(text=f"{percent(-rate)} dearer", tone="bad")
    if rate < 0.0005:
        return Headline(text="No saving", tone="neutral")
    if not run.certificate.holds:
        return Headline(text=f"{percent(rate)} cheaper, not certified", tone="bad")
    return Headline(text=f"{percent(rate)} cheaper", tone="good")


def certificate_sentences(run: Run) -> tuple[str, str]:
    """Return what is proved, and what this many examples could have found out, in two plain sentences."""
    proof = run.certificate
    promise, bound = words(proof.quality_drop_at_most), words(proof.quality_drop_upper_bound)
    confidence = f"{proof.confidence * 100:g} %"
    if proof.holds:
        first = (
            f"With {confidence} confidence, the final stack loses at most {bound} of quality against the "
            f"baseline; the promise was {promise}."
        )
    else:
        first = (
            f"Not certified: at {confidence} confidence the drop in quality could be {bound}, "
            f"and the promise was at most {promise}."
        )
    second = (
        f"This was tested once, on {proof.n:,} examples that no search ever saw (observed drop "
        f"{words(proof.quality_drop)}); with so many, a true drop of {words(proof.minimum_detectable_drop)} "
        "would have been noticed four times out of five."
    )
    return first, second


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One line of the bill before and after, USD per 1,000 requests; 0 where the stack has no such line."""

    name: str
    before: float
    after: float


def ledger_rows(run: Run) -> tuple[LedgerRow, ...]:
    """Return every line of either bill once: the baseline's lines in their order, then the final stack's new ones."""
    before, after = _lines(run.baseline), _lines(run.final)
    names = [*before, *(name for name in after if name not in before)]
    return tuple(LedgerRow(name=name, before=before.get(name, 0.0), after=after.get(name, 0.0)) for name in names)


def _lines(measurement: Measurement) -> dict[str, float]:
    sums: dict[str, float] = {}
    for line in measurement.ledger:
        sums[line.name] = sums.get(line.name, 0.0) + line.usd_per_1k_requests
    return sums


def instances_text(measurement: Measurement) -> str:
    """Return the fleet in words: `6 x m6a.large, 1 x c6a.large`."""
    return ", ".join(f"{count} x {name}" for name, count in measurement.instances.items()) or "none"


def chain_lines(run: Run) -> Iterator[tuple[str, str]]:
    """Yield each stage of the final stack with how it is run, in the order that requests meet them."""
    stack = run.final_stack
    for stage in stack.stages:
        if stage.model is None:
            forever = "forever" if stage.ttl_seconds is None else f"for {stage.ttl_seconds:g} s"
            yield "exact cache", f"{stage.capacity_entries:,} entries, kept {forever}"
            continue
        deployment = stack.deployment(stage.model)
        batch = deployment.batch
        accepts = "always answers"
        if stage.accept is not None:
            rule = stage.accept.rule.replace("_", " ")
            accepts = f"answers when its {rule} is at least {stage.accept.threshold:.4g}"
        threads = "1 thread" if deployment.threads == 1 else f"{deployment.threads} threads"
        yield (
            stage.model,
            f"{accepts}; {deployment.replica.replicas} x {threads} on {deployment.instance_type}, "
            f"batches of up to {batch.max_batch_size}, waiting at most {batch.max_wait_seconds * 1e3:g} ms",
        )


def money(usd: float | None) -> str:
    """Return dollars, or a dash where nothing was measured."""
    return "-" if usd is None else format_usd(usd)

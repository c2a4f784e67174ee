"""A run as the one JSON object that `--json` prints, schema halve.run/1. Its schema is generated from these classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from halve.core import Certificate, Comparison, Measurement, Replay, Run, Rung
from halve.core.documents import to_plain


@dataclass(frozen=True, kw_only=True)
class MeasurementSummary:
    """One stack in figures: money per 1,000 requests, mean score in [0, 1], seconds; the ledger sums to the cost."""

    usd_per_1k_requests: float
    quality: float
    latency_p50_seconds: float
    latency_p99_seconds: float
    ledger: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CertificateSummary:
    """What the certify split proves; drops are in score units, 0.01 is one point."""

    holds: bool
    quality_drop_upper_bound: float
    quality_drop_at_most: float
    confidence: float
    n: int
    minimum_detectable_drop: float


@dataclass(frozen=True, kw_only=True)
class RungSummary:
    """One change tried. The three figures are null where the lever had nothing to offer."""

    lever: str
    change: str
    verdict: Literal["keep", "reject"]
    reason: str
    usd_per_1k_requests: float | None
    quality: float | None
    latency_p99_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary:
    """A prediction beside what really happened."""

    predicted: float
    replayed: float


@dataclass(frozen=True, kw_only=True)
class ReplaySummary:
    """The chosen stack, really served."""

    latency_p99_seconds: ComparisonSummary
    usd_per_1k_requests: ComparisonSummary


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One finished optimization; saving_rate is 1 - final / baseline cost, negative if it became dearer."""

    schema: Literal["halve.run/1"] = "halve.run/1"
    baseline: MeasurementSummary
    final: MeasurementSummary
    saving_rate: float
    certificate: CertificateSummary
    rungs: tuple[RungSummary, ...]
    replay: ReplaySummary | None
    stack: str
    report: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ProfileSummary:
    """The baseline alone, as `halve profile --json` prints it."""

    schema: Literal["halve.profile/1"] = "halve.profile/1"
    baseline: MeasurementSummary


def summary(run: Run, *, folder: Path) -> dict[str, Any]:
    """Return the halve.run/1 object of a run; `stack` and `report` are paths below `folder`, the run folder."""
    return _plain(
        RunSummary(
            baseline=_measurement(run.baseline),
            final=_measurement(run.final),
            saving_rate=run.saving_rate,
            certificate=_certificate(run.certificate),
            rungs=tuple(_rung(rung) for rung in run.rungs),
            replay=None if run.replay is None else _replay(run.replay),
            stack=str(folder / run.stack_path),
            report=str(folder / run.report_path),
            seconds=run.seconds,
        )
    )


def profile_summary(measurement: Measurement) -> dict[str, Any]:
    """Return the halve.profile/1 object of a measured baseline."""
    return _plain(ProfileSummary(baseline=_measurement(measurement)))


def _plain(noun: object) -> dict[str, Any]:
    return cast(dict[str, Any], to_plain(noun))


def _measurement(measurement: Measurement) -> MeasurementSummary:
    ledger: dict[str, float] = {}
    for line in measurement.ledger:
        ledger[line.name] = ledger.get(line.name, 0.0) + line.usd_per_1k_requests
    return MeasurementSummary(
        usd_per_1k_requests=measurement.usd_per_1k_requests,
        quality=measurement.quality,
        latency_p50_seconds=measurement.latency.p50_seconds,
        latency_p99_seconds=measurement.latency.p99_seconds,
        ledger=ledger,
    )


def _certificate(certificate: Certificate) -> CertificateSummary:
    return CertificateSummary(
        holds=certificate.holds,
        quality_drop_upper_bound=certificate.quality_drop_upper_bound,
        quality_drop_at_most=certificate.quality_drop_at_most,
        confidence=certificate.confidence,
        n=certificate.n,
        minimum_detectable_drop=certificate.minimum_detectable_drop,
    )


def _rung(rung: Rung) -> RungSummary:
    measurement = rung.measurement
    return RungSummary(
        lever=rung.lever,
        change=rung.description,
        verdict=rung.verdict.decision,
        reason=rung.verdict.reason,
        usd_per_1k_requests=None if measurement is None else measurement.usd_per_1k_requests,
        quality=None if measurement is None else measurement.quality,
        latency_p99_seconds=None if measurement is None else measurement.latency.p99_seconds,
    )


def _replay(replay: Replay) -> ReplaySummary:
    def pair(comparison: Comparison) -> ComparisonSummary:
        return ComparisonSummary(predicted=comparison.predicted, replayed=comparison.replayed)

    return ReplaySummary(
        latency_p99_seconds=pair(replay.latency_p99_seconds),
        usd_per_1k_requests=pair(replay.usd_per_1k_requests),
    )

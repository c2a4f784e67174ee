"""`halve cache replay`."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from halve.cli.options import Command, debug_option, json_option, print_json
from halve.units import format_percent, format_seconds, format_usd

if TYPE_CHECKING:
    from halve.assembly.cache_replay import CacheVerdict

NOTHING_PASSED = 3
CURVE_ROWS = 8
_EXAMPLES = (
    "halve cache replay log.jsonl --precision 0.98 --usd-per-answer 0.002",
    "halve cache replay log.csv --question text --answer intent --partition tenant --policy policy.json",
)


@click.command("replay", cls=Command, examples=_EXAMPLES)
@click.argument("log")
@click.option("--question", default="question", show_default=True, metavar="COLUMN", help="What was asked.")
@click.option("--answer", default="answer", show_default=True, metavar="COLUMN", help="Equal values are equal answers.")
@click.option("--partition", metavar="COLUMN", help="What must not share answers: a tenant, a system prompt.")
@click.option(
    "--encoder",
    default="minilm",
    show_default=True,
    help="minilm; a folder with model.onnx and tokenizer.json; or URL#MODEL, its key in HALVE_ENCODER_KEY.",
)
@click.option("--precision", type=float, default=0.95, show_default=True, help="Share of hits that must be right.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the proof.")
@click.option("--usd-per-answer", type=float, default=0.0, help="What one answer of the model costs.")
@click.option("--policy", metavar="FILE", help="Write what `halve cache serve` needs here; must not exist.")
@json_option
@debug_option
def command(as_json: bool, **options: Any) -> None:
    """Would a semantic cache pay on a LOG? JSONL, CSV, Parquet or NPZ, rows in order of arrival.

    Learns from the first half of its different questions, proves a threshold on the next quarter and judges on the
    last. Exit code 3: do not enable.
    """
    from halve.assembly.cache_replay import replay_cache
    from halve.cli.progress import progress

    verdict = replay_cache(progress=progress(), **options)
    if as_json:
        print_json(_document(verdict))
    else:
        for line in _lines(verdict):
            click.echo(line)
    if not verdict.enable:
        sys.exit(NOTHING_PASSED)


def _document(verdict: "CacheVerdict") -> dict[str, Any]:
    found = verdict.replay
    return {
        "schema": "halve.cache-replay/1",
        "enable": verdict.enable,
        "reason": found.choice.reason,
        "threshold": found.choice.threshold if found.choice.point else None,
        "precision_at_least": found.choice.precision_at_least,
        "confidence": found.choice.confidence,
        "requests": found.requests,
        "exact_repeats": found.exact_repeats,
        "new_questions": found.new_questions,
        "judged": found.judged,
        "hits": found.hits,
        "hit_rate": found.hit_rate,
        "wrong_hits": found.wrong_hits,
        "wrong_share_upper_bound": found.wrong_share_upper_bound,
        "encode_seconds_each": verdict.encode_seconds_each,
        "usd_per_encoding": verdict.usd_per_encoding,
        "usd_saved_per_1k_requests": verdict.usd_saved_per_1k_requests,
        "filling": [
            {"below": level.below, "threshold": level.threshold if level.threshold < 1 else None}
            for level in found.policy.filling
        ],
        "curve": [
            {
                "threshold": point.threshold,
                "hit_rate": point.hit_rate,
                "recall": point.recall,
                "precision": point.precision,
                "precision_low": point.precision_low,
                "precision_high": point.precision_high,
            }
            for point in found.curve
        ],
        "mistakes": [
            {"text": one.text, "stored": one.stored, "probability": one.probability} for one in found.mistakes
        ],
        "policy": None if verdict.policy_path is None else str(verdict.policy_path),
    }


def _lines(verdict: "CacheVerdict") -> Iterator[str]:
    found, target = verdict.replay, verdict.replay.choice.precision_at_least
    share = found.exact_repeats / found.requests
    yield f"semantic cache on {verdict.source}: {'enable' if verdict.enable else 'do not enable'}"
    yield f"  {found.choice.reason}"
    yield f"  {found.requests:,} requests; {format_percent(share)} repeat an earlier text: an exact cache answers those"
    yield (
        f"  {found.judged:,} new questions judged, which nothing was chosen on: {format_percent(found.hit_rate)} hit, "
        f"{found.wrong_hits:,} of {found.hits:,} wrong"
    )
    if found.hits:
        worst, sure = format_percent(found.wrong_share_upper_bound), format_percent(found.choice.confidence)
        yield f"  wrong share at most {worst} at {sure}; {format_percent(1 - target)} allowed"
    yield f"  encoder {verdict.encoder}: {format_seconds(verdict.encode_seconds_each)} a question"
    if verdict.usd_per_answer:
        yield f"  saves {format_usd(verdict.usd_saved_per_1k_requests)} per 1,000 requests, the encoder paid for"
    yield ""
    yield "  threshold     hits    right     at least"
    for point in _shown(verdict):
        yield (
            f"  {point.threshold:>9.3f}  {format_percent(point.hit_rate):>7}  {format_percent(point.precision):>7}"
            f"  {format_percent(point.precision_low):>11}"
        )
    yield from _filling(verdict)
    if found.mistakes:
        yield ""
        yield "  surest mistakes, to read:" if found.hits else "  what would have been served wrongly first:"
    for one in found.mistakes[:CURVE_ROWS]:
        yield f"  {one.probability:.3f}  {_cut(one.text)}"
        yield f"         {_cut(one.stored)}"
    if verdict.policy_path is not None:
        yield f"  policy written to {verdict.policy_path}"


def _filling(verdict: "CacheVerdict") -> Iterator[str]:
    policy = verdict.replay.policy
    if not policy.filling:
        return
    yield ""
    yield "  questions stored  threshold of a young cache, each proved alone"
    for level in policy.filling:
        said = f"{level.threshold:.3f}" if level.threshold < 1 else "the same words only"
        yield f"  {f'under {level.below:,}':>16}  {said}"
    yield f"  {f'from {policy.most_held:,}':>16}  {policy.threshold:.3f}"


def _shown(verdict: "CacheVerdict") -> list[Any]:
    """Return a few points of the curve, evenly by hits."""
    points = [point for point in verdict.replay.curve if point.hits]
    if len(points) <= CURVE_ROWS:
        return points
    most = points[-1].hits
    wanted = [most * (row + 1) / CURVE_ROWS for row in range(CURVE_ROWS)]
    chosen = [min(points, key=lambda point, goal=goal: abs(point.hits - goal)) for goal in wanted]  # type: ignore[misc]
    return list(dict.fromkeys(chosen))


def _cut(text: str, width: int = 68) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= width else f"{plain[: width - 3]}..."

"""The report for a terminal: 80 columns, readable without colour, in a pipe and in ASCII."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from halve.core import Comparison, Measurement, Run
from halve.report import view
from halve.units import format_seconds, format_usd

WIDTH = 80
_INDENT = "  "
_BAR_CELLS = 56
_TONES: dict[view.Tone, str] = {"good": "bold green", "neutral": "bold", "bad": "bold red"}


def print_report(run: Run, *, folder: Path, console: Console) -> None:
    """Print the whole report of a run to a console; nothing is wider than 80 columns but paths and commands."""
    for part in (_title(run), _waterfall(run, console), _certificate(run), _replay(run), _ledger(run), _chain(run)):
        for line in part:
            _print(console, line)
    for line in (*_assumptions(run), *_paths(run, folder)):
        _print(console, line)


def print_profile(measurement: Measurement, *, console: Console) -> None:
    """Print a measured baseline: money line by line, quality, latency, and how busy each station is."""
    _print(console, Text(f"baseline  {format_usd(measurement.usd_per_1k_requests)} per 1,000 requests", "bold"))
    quality, p50 = view.percent(measurement.quality, digits=2), format_seconds(measurement.latency.p50_seconds)
    p99 = format_seconds(measurement.latency.p99_seconds)
    _print(console, Text(f"quality {quality}, p50 {p50}, p99 {p99}, on {view.instances_text(measurement)}"))
    for line in _heading("Where the money goes", "USD per 1,000 requests"):
        _print(console, line)
    for entry in measurement.ledger:
        _print(console, Text(f"{_INDENT}{_cut(entry.name, 60):<62}{format_usd(entry.usd_per_1k_requests):>14}"))
    for line in _heading("How busy each station is", "utilization"):
        _print(console, line)
    for name, share in measurement.utilization.items():
        _print(console, Text(f"{_INDENT}{_cut(name, 60):<62}{view.percent(share):>14}"))


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True, highlight=False)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrapped(text: str, style: str = "", *, indent: str = _INDENT, first: str | None = None) -> Iterator[Text]:
    lines = textwrap.wrap(text, WIDTH, initial_indent=indent if first is None else first, subsequent_indent=indent)
    yield from (Text(line, style) for line in lines)


def _heading(left: str, right: str = "") -> Iterator[Text]:
    yield Text("")
    yield Text(left, "bold") + Text(right.rjust(WIDTH - len(left)) if right else "", "dim")


def _title(run: Run) -> Iterator[Text]:
    headline = view.headline(run)
    room = WIDTH - len(headline.text) - 9
    yield Text(f"halve  {_cut(run.name, room):<{room}}  ") + Text(headline.text, _TONES[headline.tone])
    before, after = format_usd(run.baseline.usd_per_1k_requests), format_usd(run.final.usd_per_1k_requests)
    p99 = format_seconds(run.final.latency.p99_seconds)
    promise = format_seconds(run.latency_p99_at_most_seconds)
    yield Text(f"{before} -> {after} per 1,000 requests; p99 {p99}, promised {promise}")


def _waterfall(run: Run, console: Console) -> Iterator[Text]:
    yield from _heading("Waterfall", "USD per 1,000 requests; saving against the step before")
    yield Text(f"{'':<22}{'USD':>10}{'saving':>9}{'quality':>10}{'drop <=':>10}{'p99':>10}", "dim")
    start = run.baseline
    yield _figures("  baseline", start.usd_per_1k_requests, None, start.quality, None, start.latency.p99_seconds)
    yield _bar(1.0, console)
    for row in view.rung_rows(run):
        yield from _rung(row, run, console)
    end = run.final
    saved = run.saving_rate
    proof = run.certificate.quality_drop_upper_bound
    yield _figures("= final", end.usd_per_1k_requests, saved, end.quality, proof, end.latency.p99_seconds, style="bold")
    yield from _wrapped(
        "Saving of the whole ladder; cost, quality and drop on the certify examples, rungs on the search examples.",
        "dim",
    )


def _rung(row: view.RungRow, run: Run, console: Console) -> Iterator[Text]:
    mark, word, style = ("+", "keep", "green") if row.keep else ("-", "reject", "yellow")
    label = f"{mark} {_cut(row.lever, 20)}"
    yield _figures(
        label, row.usd, row.saving_rate, row.quality, row.drop_bound, row.p99_seconds, word=word, style=style
    )
    yield from _wrapped(row.description)
    yield from _wrapped(row.reason, "dim")
    if row.keep and row.usd is not None and run.baseline.usd_per_1k_requests > 0:
        yield _bar(row.usd / run.baseline.usd_per_1k_requests, console)


def _figures(
    label: str,
    usd: float | None,
    saved: float | None,
    quality: float | None,
    bound: float | None,
    p99_seconds: float | None,
    *,
    word: str = "",
    style: str = "",
) -> Text:
    cells = (
        view.money(usd),
        "" if saved is None else view.percent(saved),
        "" if quality is None else view.percent(quality, digits=2),
        "" if bound is None else view.points(bound),
        "" if p99_seconds is None else format_seconds(p99_seconds),
    )
    text = "".join(f"{cell:>{width}}" for cell, width in zip(cells, (10, 9, 10, 10, 10), strict=True))
    line = Text(f"{label:<22}", style) + Text(text if word else text.rstrip())
    return line + Text(f"{word:>9}", style) if word else line


def _bar(share: float, console: Console) -> Text:
    full, empty = ("#", ".") if console.options.ascii_only else ("█", "░")
    cells = min(_BAR_CELLS, max(0, round(share * _BAR_CELLS)))
    bar = Text(_INDENT) + Text(full * cells, "cyan") + Text(empty * (_BAR_CELLS - cells), "dim")
    return bar + Text(f"{view.percent(share)} of the cost".rjust(WIDTH - len(bar.plain)), "dim")


def _certificate(run: Run) -> Iterator[Text]:
    yield from _heading("Certificate", "holds" if run.certificate.holds else "does not hold")
    for sentence in view.certificate_sentences(run):
        yield from _wrapped(sentence)


def _replay(run: Run) -> Iterator[Text]:
    replay = run.replay
    if replay is None:
        yield from _heading("Predicted against replayed", "not replayed")
        yield from _wrapped("The final stack was not served: every figure here is simulated from measured tables.")
        return
    served = f"{replay.n_requests:,} requests really served in {format_seconds(replay.duration_seconds)}"
    yield from _heading("Predicted against replayed", served)
    yield Text(f"{'':<35}{'predicted':>15}{'replayed':>15}{'error':>15}", "dim")
    yield _compared("p50 latency", replay.latency_p50_seconds, seconds=True)
    yield _compared("p99 latency", replay.latency_p99_seconds, seconds=True)
    yield _compared("USD per 1,000 requests", replay.usd_per_1k_requests, seconds=False)
    agreeing, failed = view.percent(replay.agreeing_answers_share, digits=2), replay.failed_requests
    lateness, busy = format_seconds(replay.send_lateness_p99_seconds), view.percent(replay.client_cpu_share)
    yield from _wrapped(
        f"{agreeing} of the answers equal the offline stack's; {failed} failed. Load generator: p99 send "
        f"lateness {lateness}, {busy} of one core."
    )
    for note in replay.notes:
        yield from _wrapped(note, "dim")


def _compared(label: str, comparison: Comparison, *, seconds: bool) -> Text:
    show = format_seconds if seconds else format_usd
    error = f"{comparison.error_rate * 100:+.1f} %" if comparison.replayed else "-"
    return Text(f"{_INDENT}{label:<33}{show(comparison.predicted):>15}{show(comparison.replayed):>15}{error:>15}")


def _ledger(run: Run) -> Iterator[Text]:
    yield from _heading("Ledger", "USD per 1,000 requests")
    yield Text(f"{'':<50}{'before':>15}{'after':>15}", "dim")
    for row in view.ledger_rows(run):
        yield Text(f"{_INDENT}{_cut(row.name, 46):<48}{format_usd(row.before):>15}{format_usd(row.after):>15}")
    before, after = run.baseline.usd_per_1k_requests, run.final.usd_per_1k_requests
    yield Text(f"{_INDENT}{'sum':<48}{format_usd(before):>15}{format_usd(after):>15}", "bold")


def _chain(run: Run) -> Iterator[Text]:
    yield from _heading("Final stack", view.instances_text(run.final))
    for number, (name, how) in enumerate(view.chain_lines(run), start=1):
        yield from _wrapped(f"{name}: {how}", first=f"{_INDENT}{number}. ", indent=_INDENT + "   ")


def _assumptions(run: Run) -> Iterator[Text]:
    if not run.assumptions:
        return
    yield from _heading("Assumptions")
    for assumption in run.assumptions:
        yield from _wrapped(assumption, first=f"{_INDENT}- ", indent=_INDENT + "  ")


def _paths(run: Run, folder: Path) -> Iterator[Text]:
    yield from _heading("Files", f"seed {run.seed}; {format_seconds(run.seconds)}")
    yield Text(f"{_INDENT}report  {folder / run.report_path}")
    yield Text(f"{_INDENT}stack   {folder / run.stack_path}")

"""Bars cut into shares: the ledger before and after, who answers, and predictions beside reality."""

from markupsafe import Markup

from halve.core import Run
from halve.report import view
from halve.report.charts.svg import Drawing, Scale, fit, legend, minus, text_width
from halve.units import format_seconds, format_usd

COLOURS = 8
_BAR = 30


def ledger(run: Run, *, width: float) -> Markup:
    """Return two stacked bars, the bill before and after on one scale; refunds stand left of zero."""
    rows = view.ledger_rows(run)
    before = [(row.name, row.before) for row in rows]
    after = [(row.name, row.after) for row in rows]
    sums = [run.baseline.usd_per_1k_requests, run.final.usd_per_1k_requests]
    title = "The bill, line by line, before and after"
    names = ", ".join(f"{row.name} {format_usd(row.before)} to {format_usd(row.after)}" for row in rows)
    shown = rows[:COLOURS] if len(rows) <= COLOURS else rows[: COLOURS - 1]
    entries = [(f"series-{index}", row.name) for index, row in enumerate(shown)]
    if len(rows) > COLOURS:
        entries.append((f"series-{COLOURS - 1}", f"{len(rows) - len(shown)} more lines"))
    drawing = Drawing(
        key="ledger", width=width, height=146 + 20 * _legend_rows(entries, width), title=title, description=names + "."
    )
    low = min(0.0, *(_below(parts) for parts in (before, after)))
    high = max(1e-12, *(_above(parts) for parts in (before, after)))
    scale = Scale(low=low, high=high, start=0, end=width)
    for index, (label, parts) in enumerate((("Before", before), ("After", after))):
        top = index * 66
        drawing.text(0, top + 14, label, css="strong")
        drawing.text(width, top + 14, format_usd(sums[index]), css="strong number", anchor="end")
        _stack(drawing, parts, scale, top=top + 22)
    legend(drawing, entries, x=0, y=152, right=width)
    return drawing.render()


def _above(parts: list[tuple[str, float]]) -> float:
    return sum(value for _, value in parts if value > 0)


def _below(parts: list[tuple[str, float]]) -> float:
    return sum(value for _, value in parts if value < 0)


def _stack(drawing: Drawing, parts: list[tuple[str, float]], scale: Scale, *, top: float) -> None:
    up = down = 0.0
    for index, (name, value) in enumerate(parts):
        start = up if value >= 0 else down + value
        css = f"series-{min(index, COLOURS - 1)}"
        span = scale(start + abs(value)) - scale(start)
        if span > 0:
            drawing.rect(scale(start), top, max(span - 1, 1.0), _BAR, css=css, tip=f"{name}: {format_usd(value)}")
        up, down = (up + value, down) if value >= 0 else (up, down + value)


def _legend_rows(entries: list[tuple[str, str]], width: float) -> int:
    rows, left = 1, 0.0
    for _, label in entries:
        size = 36 + text_width(fit(label, width - 20, 12), 12)
        if left > 0 and left + size - 12 > width:
            rows, left = rows + 1, 0.0
        left += size
    return rows


def stages(run: Run, *, width: float) -> Markup:
    """Return one row per stage of the final stack: the share of requests it answered."""
    shares = list(run.final.stage_share.items())
    facts = ", ".join(f"{name} {view.percent(share)}" for name, share in shares)
    drawing = Drawing(
        key="stages", width=width, height=48.0 * len(shares) + 4, title="Who answers", description=facts + "."
    )
    scale = Scale(low=0, high=1, start=0, end=width)
    for index, (name, share) in enumerate(shares):
        top = index * 48.0
        value = view.percent(share)
        drawing.text(0, top + 14, fit(name, width - text_width(value, 13) - 16, 13), css="label")
        drawing.text(width, top + 14, value, css="strong number", anchor="end")
        drawing.rect(0, top + 21, width, 14, css="track")
        drawing.rect(0, top + 21, max(scale(share), 2.0), 14, css=f"series-{min(index, COLOURS - 1)}", tip=facts)
    return drawing.render()


def replay(run: Run, *, width: float) -> Markup:
    """Return, for each figure, a bar predicted and a bar replayed on one scale. Empty without a replay."""
    if run.replay is None:
        return Markup("")
    pairs = (
        ("p50 latency", run.replay.latency_p50_seconds, format_seconds),
        ("p99 latency", run.replay.latency_p99_seconds, format_seconds),
        ("USD per 1,000 requests", run.replay.usd_per_1k_requests, format_usd),
    )
    facts = [f"{name}: predicted {show(pair.predicted)}, replayed {show(pair.replayed)}" for name, pair, show in pairs]
    drawing = Drawing(
        key="replay", width=width, height=286, title="Predicted against replayed", description="; ".join(facts) + "."
    )
    legend(drawing, [("bar-predicted", "predicted"), ("bar-after", "replayed")], x=0, y=12, right=width)
    for index, (name, pair, show) in enumerate(pairs):
        top = 40 + index * 84
        error = minus(f"{pair.error_rate * 100:+.1f} %") if pair.replayed else "-"
        drawing.text(0, top + 12, name, css="label")
        drawing.text(width, top + 12, f"error {error}", css="strong number", anchor="end")
        scale = Scale(low=0, high=max(pair.predicted, pair.replayed, 1e-12), start=0, end=width - 84)
        for row, (css, value) in enumerate((("bar-predicted", pair.predicted), ("bar-after", pair.replayed))):
            y = top + 20 + row * 24
            drawing.rect(0, y, max(scale(value), 2.0), 18, css=css, tip=facts[index])
            drawing.text(scale(value) + 8, y + 14, show(value), css="tick number")
    return drawing.render()

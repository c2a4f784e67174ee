"""How the money went down: baseline, what each kept rung took off, final."""

from dataclasses import dataclass

from markupsafe import Markup

from halve.core import Run
from halve.report import view
from halve.report.charts.svg import Drawing, Scale, fit, minus, text_width

_ROW = 40
_SIZE = 13


@dataclass(frozen=True, kw_only=True)
class _Bar:
    label: str
    css: str
    low: float
    high: float
    value: str
    tip: str


def waterfall(run: Run, *, width: float) -> Markup:
    """Return the waterfall of USD per 1,000 requests, one row per kept rung, longest bar the dearest step."""
    bars = _bars(run)
    wide = width >= 600
    row = _ROW if wide else _ROW + 18
    drawing = Drawing(
        key="waterfall",
        width=width,
        height=len(bars) * row + 8,
        title="Cost of 1,000 requests, step by step",
        description="; ".join(bar.tip for bar in bars) + ".",
    )
    labels = min(240.0, max(text_width(bar.label, _SIZE) for bar in bars) + 16) if wide else 0.0
    values = max(text_width(bar.value, _SIZE) for bar in bars) + 12
    low, high = min(0.0, *(bar.low for bar in bars)), max(bar.high for bar in bars)
    scale = Scale(low=low, high=high, start=labels, end=width - values if wide else width - 2)
    for index, bar in enumerate(bars):
        _draw(drawing, bar, scale, top=index * row + 4, wide=wide, values=values)
        if index + 1 < len(bars):
            _connect(drawing, bar, scale, top=index * row + 4, row=row, wide=wide)
    return drawing.render()


def _bars(run: Run) -> list[_Bar]:
    cost = run.baseline.usd_per_1k_requests
    bars = [_total("Baseline", cost, "bar-before")]
    for item in view.rung_rows(run):
        if not item.keep or item.usd is None:
            continue
        down = item.usd <= item.usd_before
        name, change = item.lever.replace("_", " "), item.usd - item.usd_before
        plus = "+" if change > 0 else ""
        rate = "" if item.saving_rate is None else f" ({plus}{view.percent(-item.saving_rate)})"
        value = minus(f"{plus}{view.money(change)}{rate}")
        low, high = sorted((item.usd_before, item.usd))
        css = "bar-down" if down else "bar-up"
        bars.append(_Bar(label=name, css=css, low=low, high=high, value=value, tip=f"{name}: {value}"))
    bars.append(_total("Final", run.final.usd_per_1k_requests, "bar-after"))
    return bars


def _total(label: str, cost: float, css: str) -> _Bar:
    value = view.money(cost)
    return _Bar(label=label, css=css, low=min(0.0, cost), high=max(0.0, cost), value=value, tip=f"{label}: {value}")


def _draw(drawing: Drawing, bar: _Bar, scale: Scale, *, top: float, wide: bool, values: float) -> None:
    strong = "strong" if bar.css in ("bar-before", "bar-after") else "label"
    start, end = scale(bar.low), scale(bar.high)
    y = top + (6 if wide else 20)
    drawing.rect(start, y, max(end - start, 2.0), 24, css=bar.css, tip=bar.tip)
    room = scale.start - 12 if wide else drawing.width - values - 8
    drawing.text(0, top + (22 if wide else 14), fit(bar.label, room, _SIZE), css=strong)
    drawing.text(drawing.width, top + (22 if wide else 14), bar.value, css=f"{strong} number", anchor="end")


def _connect(drawing: Drawing, bar: _Bar, scale: Scale, *, top: float, row: float, wide: bool) -> None:
    # The level that the next bar starts from: the cost after this step.
    level = bar.high if bar.css in ("bar-before", "bar-up") else bar.low
    bottom = top + (30 if wide else 44)
    drawing.line(scale(level), bottom, scale(level), bottom + row - 24, css="connect")

"""The cost-quality plane: every rung tried, kept ones filled, and the margin that none may fall below."""

from dataclasses import dataclass

from markupsafe import Markup

from halve.core import Run
from halve.report import view
from halve.report.charts.svg import Drawing, Scale, fit, legend, minus, round_usd, text_width, x_axis, y_axis

_HEIGHT = 330.0


@dataclass(frozen=True, kw_only=True)
class _Point:
    usd: float
    change: float
    css: str
    name: str
    tip: str


def plane(run: Run, *, width: float) -> Markup:
    """Return the plane: x USD per 1,000 requests, y quality against the baseline in points."""
    points = _points(run)
    margin = run.certificate.quality_drop_at_most
    drawing = Drawing(
        key="plane",
        width=width,
        height=_HEIGHT,
        title="Cost and quality of every change tried",
        description="; ".join(point.tip for point in points) + f". Promised: at most {view.points(margin)} lost.",
    )
    x, y = _scales(points, margin, width)
    bottom = y.start
    legend(
        drawing,
        [("dot-kept", "kept"), ("dot-rejected", "rejected"), ("dot-before", "baseline"), ("dot-after", "final")],
        x=0, y=12, right=width,
    )  # fmt: skip
    x_axis(drawing, x, y=bottom, label="USD per 1,000 requests", show=round_usd, top=y.end)
    y_axis(drawing, y, x=x.start, right=width - 8, show=lambda value: minus(f"{value:+.3g}") if value else "0")
    drawing.text(0, y.end - 10, "quality against the baseline, points", css="label")
    drawing.line(x.start, y(-margin * 100), width - 8, y(-margin * 100), css="limit")
    drawing.text(width - 10, y(-margin * 100) + 15, "promise: no lower", css="limit-text", anchor="end")
    _draw_points(drawing, points, x, y)
    return drawing.render()


def _points(run: Run) -> list[_Point]:
    def point(name: str, usd: float, change: float, css: str) -> _Point:
        tip = f"{name}: {view.money(usd)}, quality {change * 100:+.2f} pt".replace("+-", "-")
        return _Point(usd=usd, change=change * 100, css=css, name=name, tip=tip)

    points = [
        point(row.lever.replace("_", " "), row.usd, row.quality_change, "dot-kept" if row.keep else "dot-rejected")
        for row in view.rung_rows(run)
        if row.usd is not None and row.quality_change is not None
    ]
    points.append(point("baseline", run.baseline.usd_per_1k_requests, 0.0, "dot-before"))
    points.append(point("final", run.final.usd_per_1k_requests, -run.certificate.quality_drop, "dot-after"))
    return points


def _scales(points: list[_Point], margin: float, width: float) -> tuple[Scale, Scale]:
    costs = [point.usd for point in points]
    changes = [point.change for point in points] + [0.0, -margin * 100]
    logarithmic = min(costs) > 0 and max(costs) > 4 * min(costs)
    if logarithmic:
        low, high = min(costs) / 1.35, max(costs) * 1.35
    else:
        low, high = min(0.0, *costs), max(costs) * 1.1
    pad = max((max(changes) - min(changes)) * 0.16, 0.1)
    x = Scale(low=low, high=high, start=48, end=width - 8, logarithmic=logarithmic)
    return x, Scale(low=min(changes) - pad, high=max(changes) + pad, start=_HEIGHT - 44, end=52)


def _draw_points(drawing: Drawing, points: list[_Point], x: Scale, y: Scale) -> None:
    taken: list[tuple[float, float, float]] = []
    for point in points:
        left, level = x(point.usd), y(point.change)
        radius = 7.0 if point.css in ("dot-before", "dot-after") else 5.5
        drawing.circle(left, level, radius, css=point.css, tip=point.tip)
    for point in reversed(points):
        _label(drawing, point, x, y, taken)


def _label(drawing: Drawing, point: _Point, x: Scale, y: Scale, taken: list[tuple[float, float, float]]) -> None:
    # A label goes above its dot, or below, and is left out where neither place is free: the dot keeps its tip,
    # and the table under the chart names every rung.
    name = fit(point.name, 120, 12)
    half = text_width(name, 12) / 2
    middle = min(max(x(point.usd), x.start + half + 2), x.end - half - 2)
    for offset in (-12.0, 21.0):
        baseline = y(point.change) + offset
        free = all(abs(middle - m) > half + h + 4 or abs(baseline - b) > 14 for m, b, h in taken)
        if free and y.end < baseline - 8 and baseline < y.start - 2:
            taken.append((middle, baseline, half))
            drawing.text(middle, baseline, name, css="tick halo", anchor="middle")
            return

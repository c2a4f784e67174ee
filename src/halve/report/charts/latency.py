"""Latency quantile curves on a log scale of time, with the tail stretched out."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from halve.core import QUANTILE_LEVELS, Latency, Run
from halve.report.charts.svg import Drawing, Scale, legend, x_axis
from halve.units import format_seconds

_HEIGHT = 330.0
_SHOWN = (0.50, 0.90, 0.99, 0.999)
_CURVES = tuple(level for level in QUANTILE_LEVELS if 0.01 <= level <= 0.999)


def latency(run: Run, *, width: float) -> Markup:
    """Return the curves of the baseline and the final stack, with the p99 promise."""
    curves = [("line-before", "baseline", run.baseline.latency), ("line-after", "final", run.final.latency)]
    promise = run.latency_p99_at_most_seconds
    return _curves("latency", "Latency before and after", curves, promise=promise, width=width)


def replayed_latency(run: Run, *, width: float) -> Markup:
    """Return the curves of the replay: predicted for its case, and measured. Empty without a replay."""
    if run.replay is None:
        return Markup("")
    predicted, replayed = run.replay.predicted.latency, run.replay.replayed.latency
    curves = [("line-predicted", "predicted", predicted), ("line-after", "replayed", replayed)]
    promise = run.latency_p99_at_most_seconds
    return _curves("replayed", "Latency predicted and replayed", curves, promise=promise, width=width)


def _curves(
    key: str, title: str, curves: Sequence[tuple[str, str, Latency]], *, promise: float, width: float
) -> Markup:
    facts = [
        f"{name}: median {format_seconds(curve.p50_seconds)}, p99 {format_seconds(curve.p99_seconds)}"
        for _, name, curve in curves
    ]
    description = "; ".join(facts) + f". Promised p99: {format_seconds(promise)}."
    drawing = Drawing(key=key, width=width, height=_HEIGHT, title=title, description=description)
    legend(drawing, [(css.replace("line", "key"), name) for css, name, _ in curves], x=0, y=12, right=width)
    times = [curve.at(level) for *_, curve in curves for level in _CURVES] + [promise]
    x = Scale(low=max(min(times), 1e-6) / 1.2, high=max(*times, 2e-6) * 1.3, start=52, end=width - 8, logarithmic=True)
    y = Scale(low=_nines(0.01), high=_nines(0.9993), start=_HEIGHT - 44, end=36)
    x_axis(drawing, x, y=y.start, label="answered within", show=_round_seconds, top=y.end)
    for level in _SHOWN:
        drawing.line(x.start, y(_nines(level)), x.end, y(_nines(level)), css="grid")
        drawing.text(x.start - 8, y(_nines(level)) + 4, f"{level * 100:g} %", css="tick", anchor="end")
    for css, name, curve in curves:
        points = [(x(curve.at(level)), y(_nines(level))) for level in _CURVES]
        drawing.path(points, css=css, tip=name)
        p99 = curve.p99_seconds
        drawing.circle(
            x(p99), y(_nines(0.99)), 4.5, css=css.replace("line", "dot"), tip=f"{name}: p99 {format_seconds(p99)}"
        )
    _promise(drawing, x, y, promise)
    return drawing.render()


def _promise(drawing: Drawing, x: Scale, y: Scale, promise: float) -> None:
    level = y(_nines(0.99))
    drawing.line(x(promise), y.end, x(promise), level, css="limit")
    drawing.line(x(promise), level, x.end, level, css="limit")
    text = f"promise {format_seconds(promise)}"
    drawing.text(x.end, level + 17, text, css="limit-text halo", anchor="end")


def _nines(level: float) -> float:
    return -math.log10(1 - level)


def _round_seconds(seconds: float) -> str:
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"

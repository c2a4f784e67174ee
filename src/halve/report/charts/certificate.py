"""The certificate: each step of the fixed sequence, its observed drop, its upper bound, and the promised margin."""

from markupsafe import Markup

from halve.core import Run
from halve.report import view
from halve.report.charts.svg import Drawing, Scale, fit, legend, text_width, x_axis

_ROW = 50.0


def certificate(run: Run, *, width: float) -> Markup:
    """Return one row per tested step: a dot at the observed drop, a line to its bound. Empty without steps."""
    proof = run.certificate
    if not proof.steps:
        return Markup("")
    margin = proof.quality_drop_at_most * 100
    facts = [
        f"{step.lever}: drop {view.points(step.quality_drop)}, at most {view.points(step.quality_drop_upper_bound)}, "
        f"{'passed' if step.passed else 'refused'}"
        for step in proof.steps
    ]
    bottom = 34 + _ROW * len(proof.steps)
    drawing = Drawing(
        key="certificate",
        width=width,
        height=bottom + 42,
        title="The fixed sequence of tests on the certify examples",
        description="; ".join(facts) + f". Promise: {view.points(proof.quality_drop_at_most)}.",
    )
    legend(drawing, [("dot-kept", "observed drop"), ("bar-bound", "up to its bound")], x=0, y=12, right=width)
    ends = [value * 100 for step in proof.steps for value in (step.quality_drop, step.quality_drop_upper_bound)]
    scale = Scale(low=min(0.0, *ends), high=max(margin, *ends) * 1.12 or 1.0, start=14, end=width - 70)
    label = "points of quality lost; dashed: the promise"
    x_axis(drawing, scale, y=bottom, label=label, show=lambda value: f"{value:.3g}", top=30)
    drawing.line(scale(margin), 30, scale(margin), bottom, css="limit")
    for index, step in enumerate(proof.steps):
        top = 34 + _ROW * index
        verdict = "passed" if step.passed else "refused"
        room = width - text_width(verdict, 13) - 24
        drawing.text(2, top + 14, fit(step.lever.replace("_", " "), room, 13), css="label halo")
        drawing.text(width - 2, top + 14, verdict, css="good halo" if step.passed else "bad halo", anchor="end")
        low, high = scale(step.quality_drop * 100), scale(step.quality_drop_upper_bound * 100)
        drawing.rect(min(low, high), top + 27, max(abs(high - low), 2.0), 6, css="bar-bound", tip=facts[index])
        drawing.line(high, top + 23, high, top + 37, css="bound-end")
        drawing.circle(low, top + 30, 5, css="dot-kept" if step.passed else "dot-bad", tip=facts[index])
    return drawing.render()

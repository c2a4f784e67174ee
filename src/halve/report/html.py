"""The report as one HTML file: no network, no script, dark and light, from a phone to a desktop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from halve.core import Run
from halve.core.documents import replace_file
from halve.report import charts, view
from halve.units import format_bytes, format_seconds, format_usd

NARROW = 320.0
HALF = 470.0
FULL = 980.0

_FIGURES: dict[str, tuple[Callable[..., Markup], float]] = {
    "certificate": (charts.certificate, HALF),
    "latency": (charts.latency, HALF),
    "ledger": (charts.ledger, FULL),
    "plane": (charts.plane, HALF),
    "replay": (charts.replay, HALF),
    "replayed_latency": (charts.replayed_latency, HALF),
    "stages": (charts.stages, HALF),
    "waterfall": (charts.waterfall, FULL),
}


def render_html(run: Run) -> str:
    """Return the report; every name and reason of the record is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("halve.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=format_bytes,
        percent=view.percent,
        points=view.points,
        saving_words=view.saving_words,
        seconds=format_seconds,
        usd=format_usd,
    )
    return environment.get_template("report.html.j2").render(**_context(run))


def write_html(run: Run, path: Path) -> None:
    """Write the report to a file, which is whole or absent."""
    text = render_html(run)
    with replace_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def figure(run: Run, name: str) -> Markup:
    """Return a chart drawn twice, for wide and for narrow screens; the page's CSS shows one of them."""
    draw, width = _FIGURES[name]
    wide, narrow = draw(run, width=width), draw(run, width=NARROW)
    if not wide:
        return Markup("")
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def _context(run: Run) -> dict[str, Any]:
    rows = view.rung_rows(run)
    return {
        "run": run,
        "headline": view.headline(run),
        "sentences": view.certificate_sentences(run),
        "rows": rows,
        "rejected": [row for row in rows if not row.keep],
        "ledger": view.ledger_rows(run),
        "chain": list(view.chain_lines(run)),
        "fleets": (view.instances_text(run.baseline), view.instances_text(run.final)),
        "figures": {name: figure(run, name) for name in _FIGURES},
    }

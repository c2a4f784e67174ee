"""What `distill` and `prune` print: a model, the chain that made it, and how far it is from its teacher."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from halve.cli.options import print_json
from halve.units import format_bytes, format_percent, format_seconds

if TYPE_CHECKING:
    from halve.assembly import MadeModel
    from halve.chains import ChainStep

FIGURE_WIDTH = 34


def print_made(made: "MadeModel", *, schema: str, as_json: bool) -> None:
    """Print a made model on stdout, for people or as JSON."""
    if as_json:
        from halve.core.documents import to_plain

        print_json(
            {
                "schema": schema,
                "folder": str(made.folder),
                "recipe": to_plain(made.record),
                "drop": asdict(made.drop),
                "judged_by": made.judged_by,
                "speed_ratio": made.speed_ratio,
                "size_bytes": made.model.size_bytes,
            }
        )
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line, style in _lines(made):
        console.print(Text(line, style), soft_wrap=True, highlight=False)


def _lines(made: "MadeModel") -> Iterator[tuple[str, str]]:
    drop = made.drop
    yield f"{made.model.name}  {made.record.chain}", "bold"
    yield (
        f"right on {format_percent(drop.candidate, digits=2)} of {drop.n:,} held-out inputs, "
        f"{made.record.parent} on {format_percent(drop.baseline, digits=2)}",
        "",
    )
    yield f"judged by {made.judged_by}; the drop is at most {100 * drop.upper_bound:.2f} points", ""
    if made.speed_ratio is not None:
        yield f"{made.speed_ratio:.1f} times as fast as {made.record.parent}, one request at a time", ""
    onnx = sum(file.size_bytes for file in made.model.files if file.path.endswith(".onnx"))
    yield f"model.onnx: {format_bytes(onnx)}", ""
    yield f"written to {made.folder}", ""
    for step in made.record.steps:
        yield "", ""
        yield from _step(step)


def _step(step: "ChainStep") -> Iterator[tuple[str, str]]:
    yield step.technique, "bold"
    for name, value in {**step.parameters, **step.figures}.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        if name.endswith("seconds") and isinstance(value, float):
            shown = format_seconds(value)
        yield f"  {name.replace('_', ' '):<{FIGURE_WIDTH}}{shown}", ""

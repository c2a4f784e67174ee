"""Options that commands which train share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--data", required=True, metavar="DATA", help="JSONL, CSV, Parquet, NPZ, or module:function."),
    click.option(
        "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist."
    ),
    click.option("--payload", default="payload", show_default=True, help="Column of DATA that holds the inputs."),
    click.option("--label", default=None, help="Column of DATA that holds right answers, if there is one."),
    click.option("--labels", default="", metavar="A,B,...", help="Class names in the order of the outputs."),
    click.option("--tokenizer", default=None, help="tokenizer.json, or module:function, if the inputs are texts."),
    click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Cut longer texts."),
    click.option("--augment", default=None, metavar="MODULE:FUNCTION", help="Changes a batch, never a right answer."),
    click.option("--epochs", type=click.IntRange(min=1), default=None, help="Passes over DATA; by kind if not given."),
    click.option("--learning-rate", type=float, default=None, help="By kind if not given."),
    click.option("--int8", "integers", is_flag=True, help="Put the result into integers for this host as well."),
    click.option(
        "--hold-out", type=float, default=0.2, show_default=True, help="Share of DATA to stop and measure by."
    ),
    click.option(
        "--quality-drop-at-most",
        type=float,
        default=0.01,
        show_default=True,
        help="Stop once the drop is at most that, with confidence.",
    ),
    click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the drop's upper bound."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."),
)


def training_options(function: F) -> F:
    """Add the options that `distill` and `prune` share."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def names_of(labels: str) -> tuple[str, ...]:
    """Return the class names of `--labels`."""
    return tuple(name.strip() for name in labels.split(",") if name.strip())

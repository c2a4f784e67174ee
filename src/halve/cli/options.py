"""What commands share: options, the command class that prints examples as they are, and JSON on stdout."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(kw_only=True)
class Settings:
    """What the process must remember after a command has failed."""

    debug: bool = False


class Command(click.Command):
    """A command whose help ends with examples, printed line by line."""

    def __init__(self, *args: Any, examples: tuple[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        formatter.write("\nExamples:\n" + "".join(f"  {example}\n" for example in self.examples))


class Group(click.Group):
    """A command of commands whose help ends with examples."""

    def __init__(self, *args: Any, examples: tuple[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        formatter.write("\nExamples:\n" + "".join(f"  {example}\n" for example in self.examples))


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.ensure_object(Settings).debug = value
    return value


def debug_option(function: F) -> F:
    """Add --debug: a failure prints its traceback."""
    return click.option(
        "--debug",
        is_flag=True,
        envvar="HALVE_DEBUG",
        show_envvar=True,
        is_eager=True,
        expose_value=False,
        callback=_remember_debug,
        help="Print the traceback if something fails.",
    )(function)


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(function)


def seed_option(function: F) -> F:
    """Add --seed."""
    return click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", help="Random seed; the config's own if not given."
    )(function)


def runs_option(function: F) -> F:
    """Add --runs."""
    return click.option(
        "--runs",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("runs"),
        show_default=True,
        envvar="HALVE_RUNS",
        show_envvar=True,
        help="Folder that holds all runs.",
    )(function)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))

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


class _WithExamples(click.Command):
    """Help that ends with examples, printed line by line."""

    def __init__(self, *args: Any, examples: tuple[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        formatter.write("\nExamples:\n" + "".join(f"  {example}\n" for example in self.examples))


class Command(_WithExamples):
    """A command whose help ends with examples."""


class Group(_WithExamples, click.Group):
    """A command of commands whose help ends with examples."""


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


def server_options(function: F) -> F:
    """Add --cache, --host and --port."""
    port = click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=8000,
        show_default=True,
        envvar="HALVE_PORT",
        show_envvar=True,
        help="0 takes any free port.",
    )
    host = click.option("--host", default="127.0.0.1", show_default=True, envvar="HALVE_HOST", show_envvar=True)
    cache = click.option(
        "--cache",
        metavar="PATH|URL",
        envvar="HALVE_CACHE_LOCATION",
        show_envvar=True,
        help="Where a semantic cache lies: a SQLite file, or postgresql://...; a temporary file if not given.",
    )
    return cache(host(port(function)))


def say_ready(host: str, port: int, *, as_json: bool) -> None:
    """Print where a server takes requests."""
    url = f"http://{host}:{port}"
    click.echo(json.dumps({"schema": "halve.serve/1", "url": url, "port": port}) if as_json else f"serving {url}")


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))

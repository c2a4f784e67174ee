"""The command line: arguments in, text out, an exit code. Commands load when they are called, so that help is instant.

Exit codes: 0 done; 1 the user can fix it; 2 wrong usage; 3 nothing passed the gate; 4 the environment failed;
130 stopped with Ctrl-C. Results go to stdout, everything else to stderr.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from halve import __version__
from halve.cli.options import Settings
from halve.errors import EnvironmentFailedError, HalveError, NothingPassedError

COMMANDS = (
    "demo",
    "init",
    "profile",
    "optimize",
    "report",
    "serve",
    "cache",
    "quantize",
    "distill",
    "prune",
    "explain",
)
"""In the order a new user meets them; each is `command` in the module of its name."""

STOPPED = "stopped; what was measured is kept, run the same command again to resume"


class _ReaderLeftError(Exception):
    """Whoever read stdout has gone, as `halve report | head` does."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"halve.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        # click would print a line of its own for these two; `main` has better ones.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None
        except BrokenPipeError:
            raise _ReaderLeftError from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\nExamples:\n  halve demo classify\n  halve init > halve.yaml\n")


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="halve")
def halve() -> None:
    """Halve the cost of serving a model, and prove that quality held."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    settings = Settings()
    try:
        result = halve.main(args=arguments, prog_name="halve", standalone_mode=False, obj=settings)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except (KeyboardInterrupt, click.Abort):
        # A terminal has just shown ^C on this line.
        _leave(f"\n{STOPPED}" if sys.stderr.isatty() else STOPPED, 130)
    except (BrokenPipeError, _ReaderLeftError):
        # Python would complain once more while it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except click.ClickException as error:
        error.show(file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if settings.debug:
            traceback.print_exc()
        _leave(*_sentence(error))


def _sentence(error: Exception) -> tuple[str, int]:
    """Return what to tell the user, and the exit code."""
    if isinstance(error, NothingPassedError):
        return str(error), 3
    if isinstance(error, EnvironmentFailedError | OSError | MemoryError):
        return f"error: {str(error) or type(error).__name__}", 4
    if isinstance(error, HalveError):
        return f"error: {error}", 1
    return (
        f"error: halve failed in a way it should not: {type(error).__name__}: {error}. "
        "Run the same command with --debug and report what it prints.",
        4,
    )


def _leave(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)

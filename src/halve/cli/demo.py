"""`halve demo`."""

from pathlib import Path

import click

from halve.cli.options import Command, debug_option, json_option, runs_option, seed_option


@click.command(cls=Command, examples=("halve demo", "halve demo classify --json > run.json"))
@click.argument("name", type=click.Choice(["classify"]), default="classify")
@runs_option
@seed_option
@json_option
@debug_option
def command(name: str, runs: Path, seed: int | None, as_json: bool) -> int:
    """Show the whole story on a model and data inside the package.

    A few minutes on two cores: trains a small teacher, measures it as many teams run it today, and cuts its cost.
    """
    from halve.cli.outcome import optimize_and_print
    from halve.demo import config_path

    return optimize_and_print(config_path(name), runs=runs, seed=seed, as_json=as_json)

"""`halve profile`."""

from pathlib import Path

import click

from halve.cli.options import Command, debug_option, json_option, print_json, runs_option, seed_option


@click.command(cls=Command, examples=("halve profile halve.yaml", "halve profile halve.yaml --json > baseline.json"))
@click.argument("config", type=click.Path(path_type=Path))
@runs_option
@seed_option
@json_option
@debug_option
def command(config: Path, runs: Path, seed: int | None, as_json: bool) -> None:
    """Measure what CONFIG's service costs today, and change nothing."""
    from halve.assembly import profile
    from halve.cli.progress import progress

    measurement = profile(config, runs=runs, seed=seed, progress=progress())
    if as_json:
        from halve.report import profile_summary

        print_json(profile_summary(measurement))
        return
    from rich.console import Console

    from halve.report import print_profile

    print_profile(measurement, console=Console())

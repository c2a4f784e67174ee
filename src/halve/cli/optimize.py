"""`halve optimize`."""

from pathlib import Path

import click

from halve.cli.options import Command, debug_option, json_option, runs_option, seed_option


@click.command(
    cls=Command,
    examples=("halve optimize halve.yaml", "halve optimize halve.yaml --seed 1 --json > run.json"),
)
@click.argument("config", type=click.Path(path_type=Path))
@runs_option
@seed_option
@json_option
@debug_option
def command(config: Path, runs: Path, seed: int | None, as_json: bool) -> int:
    """Find the cheapest stack that keeps CONFIG's promises, and prove it.

    Measures the baseline, climbs the ladder, certifies and replays the result. Interrupted runs resume where
    they stopped. Exits with 3 if no change passed the gate.
    """
    from halve.cli.outcome import optimize_and_print

    return optimize_and_print(config, runs=runs, seed=seed, as_json=as_json)

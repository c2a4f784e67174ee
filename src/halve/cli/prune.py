"""`halve prune`."""

from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option
from halve.cli.training_options import names_of, training_options

EXAMPLES = (
    "halve prune model:network --data train.npz --payload images --target-latency-ratio 0.5 -o pruned",
    "halve prune model:network --data train.npz --payload images --target-latency-ratio 0.3 --int8 -o small",
)


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("model")
@click.option(
    "--target-latency-ratio", type=float, default=0.5, show_default=True, help="Measured seconds over MODEL's own."
)
@click.option(
    "--importance",
    type=click.Choice(["taylor", "magnitude", "activation"]),
    default="taylor",
    show_default=True,
    help="What says which channels go.",
)
@training_options
@json_option
@debug_option
def command(model: str, labels: str, as_json: bool, **options: Any) -> None:
    """Cut MODEL (module:function returning a trained torch module) to a share of its seconds.

    Then it learns from what it was. Killed at any time, the same command goes on where it was.
    """
    from halve.assembly import prune
    from halve.cli.made import print_made
    from halve.cli.progress import progress

    made = prune(model, labels=names_of(labels), progress=progress(), **options)
    print_made(made, schema="halve.prune/1", as_json=as_json)

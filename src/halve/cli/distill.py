"""`halve distill`."""

from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option
from halve.cli.training_options import names_of, training_options

EXAMPLES = (
    "halve distill --teacher model:teacher --student model:small --data train.npz --payload images -o student",
    "halve distill --teacher big.onnx --student ngrams --data log.jsonl --payload text --tokenizer tokenizer.json -o s",
)


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--teacher", required=True, help="ONNX file, module:function, or an endpoint's .json file.")
@click.option(
    "--student", required=True, help="module:function (an untrained torch module); for texts: convolution, ngrams."
)
@click.option("--temperature", type=float, default=None, help="T of the softened answers; by kind if not given.")
@click.option("--alpha", type=float, default=None, help="Weight of the teacher's part of the loss, in [0, 1].")
@click.option("--search", is_flag=True, help="Look for temperature and alpha by successive halving.")
@click.option(
    "--divergence",
    type=click.Choice(["forward_kl", "reverse_kl", "jensen_shannon"]),
    default="forward_kl",
    show_default=True,
    help="Between the answers of teacher and student.",
)
@training_options
@json_option
@debug_option
def command(teacher: str, labels: str, as_json: bool, **options: Any) -> None:
    """Train a small model on a large one's answers, and measure how far it is from it.

    Labels are welcome and not needed. Killed at any time, the same command goes on where it was.
    """
    from halve.assembly import distill
    from halve.cli.made import print_made
    from halve.cli.progress import progress

    made = distill(teacher, labels=names_of(labels), progress=progress(), **options)
    print_made(made, schema="halve.distill/1", as_json=as_json)

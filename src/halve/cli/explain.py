"""`halve explain`."""

from dataclasses import asdict
from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option, print_json
from halve.learn import TOPICS, as_text, explain


def _number_options(function: Any) -> Any:
    """Add one option for each number that some topic takes."""
    takers: dict[str, list[str]] = {}
    numbers = {number.name: number for topic in TOPICS.values() for number in topic.numbers}
    for topic in TOPICS.values():
        for number in topic.numbers:
            takers.setdefault(number.name, []).append(topic.name)
    for name, number in reversed(numbers.items()):
        kind = int if isinstance(number.default, int) else float
        meaning = f"For {', '.join(takers[name])}: {number.meaning}; {number.default:g} if not given."
        function = click.option(f"--{name}", type=kind, help=meaning)(function)
    return function


@click.command(
    cls=Command,
    examples=("halve explain quantization", "halve explain quantization --low 0 --high 6 --bits 4 --value 2.5"),
)
@click.argument("topic", type=click.Choice(list(TOPICS)))
@_number_options
@json_option
@debug_option
def command(topic: str, as_json: bool, **numbers: float | None) -> None:
    """Derive TOPIC step by step, with your numbers.

    Every figure is computed by the code that halve itself runs.
    """
    given = {name: number for name, number in numbers.items() if number is not None}
    derivation = explain(topic, **given)
    if as_json:
        print_json({"schema": "halve.explain/1", **asdict(derivation)})
    else:
        click.echo(as_text(derivation), nl=False)

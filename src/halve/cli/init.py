"""`halve init`."""

from importlib.resources import files

import click

from halve.cli.options import Command, debug_option, json_option, print_json


@click.command(cls=Command, examples=("halve init > halve.yaml", "halve init --json > halve.json"))
@json_option
@debug_option
def command(as_json: bool) -> None:
    """Print a commented halve.yaml that shows every key.

    The name, the examples, the model and the traffic are yours to fill in; the rest are defaults.
    """
    text = files("halve.cli").joinpath("templates", "halve.yaml").read_text(encoding="utf-8")
    if not as_json:
        click.echo(text, nl=False)
        return
    import yaml

    print_json(yaml.safe_load(text))

"""`halve cache`: its two commands, loaded when they are called."""

from importlib import import_module

import click

from halve.cli.options import Group

COMMANDS = ("replay", "serve")
_EXAMPLES = (
    "halve cache replay log.jsonl --precision 0.98 --policy policy.json",
    "halve cache serve https://api.example.com/v1 --policy policy.json --cache answers.sqlite",
)


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"halve.cli.cache_{cmd_name}").command
        return found


@click.command("cache", cls=_Commands, examples=_EXAMPLES)
def command() -> None:
    """Semantic cache: would it pay on a log, and serve it in front of a chat endpoint."""

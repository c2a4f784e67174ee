"""`halve serve`."""

from pathlib import Path
from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option, say_ready, server_options


@click.command(
    cls=Command,
    examples=("halve serve runs/latest/stack.yaml", "halve serve runs/latest/stack.yaml --host 0.0.0.0 --port 8080"),
)
@click.argument("stack", type=click.Path(path_type=Path))
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The halve.yaml of the run: needed only where a model of the stack is Python code.",
)
@server_options
@click.option(
    "--shadow-share",
    type=float,
    metavar="SHARE",
    help="Ask the last model too for this share of early answers, and tighten thresholds when too many differ.",
)
@click.option(
    "--disagreement-at-most",
    type=float,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="With --shadow-share: of requests whose answer may differ from the last model's.",
)
@json_option
@debug_option
def command(
    stack: Path, config: Path | None, host: str, port: int, cache: str | None, as_json: bool, **watched: Any
) -> None:
    """Serve a STACK file until Ctrl-C: /v2/models/{name}/infer, /healthz, /metrics."""
    from halve.assembly import serve
    from halve.assembly.watching import ProductionWatch

    share, at_most = watched["shadow_share"], watched["disagreement_at_most"]
    watch = None if share is None else ProductionWatch(share=share, disagreement_at_most=at_most)

    try:
        serve(
            stack,
            config=config,
            host=host,
            port=port,
            cache=cache,
            watch=watch,
            ready=lambda bound: say_ready(host, bound, as_json=as_json),
        )
    except KeyboardInterrupt:
        click.echo("stopped", err=True)

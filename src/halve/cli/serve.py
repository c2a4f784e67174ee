"""`halve serve`."""

import json
from pathlib import Path
from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option


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
@click.option("--host", default="127.0.0.1", show_default=True, envvar="HALVE_HOST", show_envvar=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    envvar="HALVE_PORT",
    show_envvar=True,
    help="0 takes any free port.",
)
@click.option(
    "--cache",
    metavar="PATH|URL",
    envvar="HALVE_CACHE_LOCATION",
    show_envvar=True,
    help="Where a semantic cache lies: a SQLite file, or postgresql://...; a temporary file if not given.",
)
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

    def ready(bound_port: int) -> None:
        url = f"http://{host}:{bound_port}"
        line = json.dumps({"schema": "halve.serve/1", "url": url, "port": bound_port}) if as_json else f"serving {url}"
        click.echo(line)

    try:
        serve(stack, config=config, host=host, port=port, cache=cache, watch=watch, ready=ready)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)

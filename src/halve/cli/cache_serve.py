"""`halve cache serve`."""

import json
from pathlib import Path
from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option

_EXAMPLES = (
    "halve cache serve https://api.example.com/v1 --policy policy.json --cache answers.sqlite",
    "halve cache serve http://localhost:8080/v1 --shared --ttl-seconds 3600 --port 8001",
)


@click.command("serve", cls=Command, examples=_EXAMPLES)
@click.argument("upstream", metavar="URL")
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="From `halve cache replay --policy`; without it only identical requests get a stored answer.",
)
@click.option("--encoder", help="Instead of the one the policy names: the same encoder at another place.")
@click.option(
    "--cache",
    metavar="PATH|URL",
    envvar="HALVE_CACHE_LOCATION",
    show_envvar=True,
    help="A SQLite file, or postgresql://...; a temporary file if not given.",
)
@click.option("--data-version", default="", help="Of what answers depend on; another version starts afresh.")
@click.option("--ttl-seconds", type=float, help="An answer is good for so long; for ever if not given.")
@click.option("--most-entries", type=int, help="So many answers are kept, those used last.")
@click.option("--usd-per-answer", type=float, default=0.0, help="What one call costs, for the metric of savings.")
@click.option(
    "--tenant-header",
    default="authorization",
    show_default=True,
    help="Requests share answers only if they have the same value there, and go past the cache without one.",
)
@click.option("--shared", is_flag=True, help="All callers share answers, with or without a key.")
@click.option(
    "--upstream-key",
    envvar="HALVE_UPSTREAM_KEY",
    show_envvar=True,
    help="Sent as a bearer token instead of what callers bring.",
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
@json_option
@debug_option
def command(host: str, as_json: bool, shared: bool, tenant_header: str, **options: Any) -> None:
    """Answer chat completions from a cache, in front of the OpenAI-compatible server at URL, until Ctrl-C.

    Takes /v1/chat/completions; passes on everything else under /v1; shows /healthz and /metrics. Each answer says in
    x-halve-cache where it comes from. Send cache-control: no-cache or no-store to go past the cache.
    """
    from halve.assembly.chat_cache import serve_chat_cache

    def ready(port: int) -> None:
        url = f"http://{host}:{port}"
        line = json.dumps({"schema": "halve.serve/1", "url": url, "port": port}) if as_json else f"serving {url}"
        click.echo(line)

    try:
        serve_chat_cache(host=host, tenant_header=None if shared else tenant_header, ready=ready, **options)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)

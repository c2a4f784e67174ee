"""`halve cache serve`."""

from pathlib import Path
from typing import Any

import click

from halve.cli.options import Command, debug_option, json_option, say_ready, server_options

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
@server_options
@json_option
@debug_option
def command(host: str, as_json: bool, shared: bool, tenant_header: str, **options: Any) -> None:
    """Answer chat completions from a cache, in front of the OpenAI-compatible server at URL, until Ctrl-C.

    Takes /v1/chat/completions; passes on everything else under /v1; shows /healthz and /metrics. Each answer says in
    x-halve-cache where it comes from. Send cache-control: no-cache or no-store to go past the cache.
    """
    from halve.assembly.chat_cache import serve_chat_cache

    try:
        serve_chat_cache(
            host=host,
            tenant_header=None if shared else tenant_header,
            ready=lambda bound: say_ready(host, bound, as_json=as_json),
            **options,
        )
    except KeyboardInterrupt:
        click.echo("stopped", err=True)

"""A gateway behind a port."""

from collections.abc import Callable
from typing import final

from halve.serving.gateway.app import App
from halve.serving.gateway.gateway import Gateway
from halve.serving.http_server import HttpServer


@final
class Server(HttpServer):
    """One gateway on one address; see `HttpServer`.

    Args:
        gateway: What answers.
        host: Address to listen on.
        port: 0 lets the system choose.
    """

    def __init__(self, gateway: Gateway, *, host: str, port: int) -> None:
        super().__init__(
            lambda on_started: App(gateway, on_started=on_started),
            name=gateway.chain.stack.name,
            host=host,
            port=port,
            drain_seconds=gateway.limits.drain_seconds,
        )


def serve(gateway: Gateway, *, host: str, port: int, ready: Callable[[int], None] | None = None) -> None:
    """Serve a gateway until SIGTERM or SIGINT; `HttpServer` says how, and what is raised."""
    Server(gateway, host=host, port=port).run(ready=ready)

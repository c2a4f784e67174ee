"""A chat cache behind a port."""

from typing import final

from halve.serving.chat.app import ChatApp
from halve.serving.http_server import HttpServer


@final
class ChatServer(HttpServer):
    """One chat cache on one address; see `HttpServer`.

    Args:
        application: What answers.
        host: Address to listen on.
        port: 0 lets the system choose.
    """

    def __init__(self, application: ChatApp, *, host: str, port: int) -> None:
        super().__init__(
            application.on_started,
            name="chat",
            host=host,
            port=port,
            drain_seconds=application.limits.drain_seconds,
        )

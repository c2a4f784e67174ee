"""An application behind a port: uvicorn with uvloop and httptools, drained on SIGTERM and SIGINT."""

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from halve.errors import EnvironmentFailedError, HalveError, InvalidParameterError, MissingExtraError

OnStarted = Callable[[HalveError | None], None]
"""Told, once, that an application takes requests, or why it cannot."""

KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048
HIGHEST_PORT = 65535

log = logging.getLogger("halve.serving")


class HttpServer:
    """One application on one address. The port is bound when this is made, so that port 0 is known at once.

    Args:
        application: Makes the ASGI application, which calls what it is given once it has started.
        name: Of what is served, for the log.
        host: Address to listen on.
        port: 0 lets the system choose.
        drain_seconds: How long a shutdown waits for requests that were already accepted.

    Raises:
        EnvironmentFailedError: If the address cannot be bound.
        InvalidParameterError: If the port is none.
        MissingExtraError: If uvicorn, uvloop or httptools is not installed.
    """

    def __init__(
        self, application: Callable[[OnStarted], Any], *, name: str, host: str, port: int, drain_seconds: int
    ) -> None:
        try:
            import httptools  # noqa: F401
            import uvicorn
            import uvloop  # noqa: F401
        except ImportError:
            raise MissingExtraError("serving", package="uvicorn, uvloop or httptools", extra="serve") from None
        self._name = name
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._failure: HalveError | None = None
        self._ready: Callable[[int], None] | None = None
        config = uvicorn.Config(
            application(self._on_started),
            loop="uvloop", http="httptools", ws="none", lifespan="on", access_log=False, log_config=None,
            server_header=False, date_header=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(config)
        # uvicorn's own handlers raise the signal again after a clean stop: the exit code would say "killed".
        self._uvicorn.capture_signals = self._signals  # type: ignore[method-assign]

    def run(self, *, ready: Callable[[int], None] | None = None) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; then answer what was taken, and return.

        Args:
            ready: Called with the port once the application has started.

        Raises:
            HalveError: Why it could not.
        """
        import asyncio

        import uvloop

        self._ready = ready
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._uvicorn.serve(sockets=[self._socket]))
        finally:
            gc.unfreeze()
            self._socket.close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask a running server to drain and return. Safe from any thread and from a signal handler."""
        self._uvicorn.should_exit = True

    def _on_started(self, failure: HalveError | None) -> None:
        self._failure = failure
        if failure is not None:
            self.stop()
            return
        gc.collect()
        gc.freeze()  # models stay for good: no later collection need walk them
        log.info("serving %s on port %d", self._name, self.port)
        if self._ready is not None:
            self._ready(self.port)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, if this is the thread that may listen to them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= HIGHEST_PORT:
        raise InvalidParameterError("port", rule=f"from 0 to {HIGHEST_PORT}", value=port)
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
    except OSError as error:
        raise EnvironmentFailedError(f"port {port} of {host!r} must be free to listen on. Got: {error}.") from error
    listener.setblocking(False)
    return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

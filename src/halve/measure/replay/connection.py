"""One HTTP/1.1 keep-alive connection, one request at a time; just enough of a client to cost little."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, final

from halve.errors import HalveError

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


class BrokenReplyError(HalveError):
    """A reply that is not HTTP/1.1 with a Content-Length."""


@final
class Exchange:
    """One request and what became of it. Times are `time.monotonic`; 0 until they happen.

    Args:
        body: The request's body.
        on_settled: Called once, when there is a reply or a reason why there is none.
    """

    __slots__ = ("body", "ended_seconds", "is_retry", "on_settled", "reason", "reply", "sent_seconds", "status")

    def __init__(self, body: bytes, *, on_settled: Callable[[], None]) -> None:
        self.body, self.on_settled = body, on_settled
        self.sent_seconds = self.ended_seconds = 0.0
        self.status, self.reply, self.reason = 0, b"", ""
        self.is_retry = False

    @property
    def is_settled(self) -> bool:
        """Whether the reply has come, or never will."""
        return self.status > 0 or bool(self.reason)

    def answered(self, status: int, reply: bytes) -> None:
        """Settle with a reply."""
        self.ended_seconds = time.monotonic()
        self.status, self.reply = status, reply
        self.on_settled()

    def failed(self, reason: str) -> None:
        """Settle without one."""
        self.reason = reason
        self.on_settled()


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def opened(self, connection: "Connection") -> None:
        """Hear that the connection can be used."""
        ...

    def freed(self, connection: "Connection") -> None:
        """Hear that a reply is whole, and the connection free again if it `is_open`."""
        ...

    def lost(self, connection: "Connection", exchange: Exchange | None, reason: str) -> None:
        """Hear that the connection is gone, and which unanswered exchange was on it."""
        ...


@final
class Connection(asyncio.Protocol):
    """Sends one request at a time and cuts the reply out of the stream."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.exchange: Exchange | None = None
        self.replies = 0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        self.is_open = True
        self._owner.opened(self)

    def send(self, exchange: Exchange, head: bytes) -> None:
        """Write a request: its head, and the exchange's body."""
        self.exchange = exchange
        exchange.sent_seconds = time.monotonic()
        if self._transport is not None:
            self._transport.write(head + exchange.body)

    def abort(self) -> None:
        """Drop the connection without a goodbye; the owner hears nothing more."""
        self.exchange = None
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect a reply; settle the exchange when it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        try:
            reply = cut_reply(self._buffer)
        except BrokenReplyError as error:
            self._drop(str(error))
            return
        if reply is None:
            return
        status, body, is_last = reply
        exchange, self.exchange, self._buffer = self.exchange, None, b""
        self.replies += 1
        if exchange is None:
            self._drop("a reply that nobody asked for")
            return
        exchange.answered(status, body)
        if is_last:
            self._drop("the server closed the connection")
        else:
            self._owner.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        self._drop("the server closed the connection" if exc is None else type(exc).__name__)

    def _drop(self, reason: str) -> None:
        if self.is_open:
            exchange = self.exchange
            self.abort()
            self._owner.lost(self, exchange, reason)


def cut_reply(data: bytes) -> tuple[int, bytes, bool] | None:
    """Return status, body, and whether the server will close; None while the reply is not whole.

    Raises:
        BrokenReplyError: If it is not HTTP/1.1 with a Content-Length.
    """
    head_end = data.find(HEAD_END)
    if head_end < 0:
        return None
    head = data[:head_end].lower()
    at = head.find(LENGTH)
    if not head.startswith(b"http/1.1 ") or at < 0:
        raise BrokenReplyError("a reply that is not HTTP/1.1 with a Content-Length")
    line_end = head.find(b"\r\n", at)
    length = int(head[at + len(LENGTH) : line_end if line_end >= 0 else None])
    body_start = head_end + len(HEAD_END)
    if len(data) < body_start + length:
        return None
    return int(head[9:12]), data[body_start : body_start + length], b"connection: close" in head

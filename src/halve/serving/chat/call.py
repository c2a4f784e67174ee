"""One request under way: what it asks, and its reply as it is sent."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from halve.serving.asgi import Headers, Scope, Send
from halve.serving.chat import completions
from halve.serving.chat.metrics import Outcome

MOST_PARTS: Final = 10_000
"""Parts of a stream that may wait for a slow caller; then the server behind waits too."""


@dataclass(kw_only=True, eq=False)
class Call:
    """One request.

    Args:
        scope: As ASGI has it.
        send: To its caller.
        body: Of the request.
        outcome: How it is answered, as far as is known.
        request: The body, parsed, if it is a chat request.
        status: Of the reply; 0 as long as nothing was sent.
        is_events: Whether what is sent is a stream of events.
        is_whole: Whether the server behind has said all: what it said is worth keeping, though the caller hangs up.
    """

    scope: Scope
    send: Send
    body: bytes
    outcome: Outcome
    request: Mapping[str, Any] = field(default_factory=dict)
    status: int = 0
    is_events: bool = False
    is_whole: bool = False
    _parts: "asyncio.Queue[bytes | None]" = field(default_factory=lambda: asyncio.Queue(MOST_PARTS))
    _sending: "asyncio.Task[None] | None" = None

    def headers(self, name: bytes) -> list[bytes]:
        """Return every value of a request header, by its name in small letters."""
        return [value for key, value in self.scope["headers"] if key == name]

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the reply."""
        self.status = status
        sent = [*headers, (b"x-halve-cache", self.outcome.encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": sent})

    async def more(self, part: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": part, "more_body": not is_last})

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole reply."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.more(body, is_last=True)

    async def refuse(self, status: int, sentence: str, *, kind: str) -> None:
        """Send an error."""
        await self.whole(status, completions.error(sentence, kind=kind), [(b"content-type", b"application/json")])

    async def begin_stream(self, status: int, headers: Headers) -> None:
        """Send the head; what `pass_on` is given is sent from then on, as fast as the caller reads."""
        fields = dict(headers)
        kind = fields.get(b"content-type", b"").lower()
        self.is_events = kind.startswith(completions.EVENT_STREAM) and b"content-encoding" not in fields
        await self.start(status, headers)
        self._sending = asyncio.create_task(self._pump())

    async def pass_on(self, part: bytes) -> None:
        """Let a part of the stream be sent."""
        await self._parts.put(part)

    async def end_stream(self, last: bytes = b"") -> None:
        """Wait until everything was sent, and end the reply. Does nothing if no stream was begun."""
        if self._sending is None:
            return
        await self._parts.put(None)
        await self._sending
        await self.more(last, is_last=True)

    def drop(self) -> None:
        """Send nothing any more: the caller has gone."""
        if self._sending is not None:
            self._sending.cancel()

    async def _pump(self) -> None:
        while (part := await self._parts.get()) is not None:
            await self.more(part)

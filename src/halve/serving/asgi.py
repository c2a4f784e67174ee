"""What every server here does with ASGI: read a body, send a reply."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON, TEXT = b"application/json", b"text/plain; version=0.0.4; charset=utf-8"

Headers = list[tuple[bytes, bytes]]


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes | None:
    """Return the request body; None if it is longer than so many bytes.

    Raises:
        ConnectionResetError: If its sender has gone.
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if int(announced) > limit:
        return None
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def reply(send: Send, status: int, body: bytes, *, content_type: bytes = JSON) -> None:
    """Send a whole reply."""
    sent = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if status == 413:
        sent.append((b"connection", b"close"))  # the rest of the body is not read
    if status == 503:
        sent.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})

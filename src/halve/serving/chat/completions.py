"""Chat completions as JSON and as streams of events: one becomes the other. Knows no network and no cache."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

DONE: Final = "[DONE]"
EVENT_STREAM: Final = b"text/event-stream"

_DATA: Final = b"data:"
MOST_EVENT_BYTES: Final = 16 * 2**20


@final
class StreamReader:
    """Puts a stream of chat completion chunks together while it goes by.

    Server-sent events as OpenAI sends them: lines `data: JSON`, an empty line after each, `data: [DONE]` at the end.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._finish: str | None = None
        self._is_plain, self._is_done = True, False

    def feed(self, content: bytes) -> None:
        """Take the next bytes of the stream."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                self._event(line[len(_DATA) :].strip())
        if len(self._rest) > MOST_EVENT_BYTES:
            self._is_plain, self._rest = False, b""

    @property
    def is_whole(self) -> bool:
        """Whether the last event was there, and all were of one text."""
        return self._is_done and self._is_plain and self._finish is not None

    def completion(self) -> dict[str, Any] | None:
        """Return the completion that was streamed; None if it is not whole, or more than one text."""
        rest, self._rest = self._rest.strip(), b""
        if rest.startswith(_DATA):  # the last line may lack its end
            self._event(rest[len(_DATA) :].strip())
        if not self.is_whole:
            return None
        choice = {"index": 0, "message": {"role": "assistant", **self._message}, "finish_reason": self._finish}
        return {**self._head, "object": "chat.completion", "choices": [choice]}

    def _event(self, data: bytes) -> None:
        if data == DONE.encode():
            self._is_done = True
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict) or "error" in chunk or not isinstance(chunk.get("choices"), list):
            self._is_plain = False
            return
        self._head.update({name: value for name, value in chunk.items() if name != "choices" and value is not None})
        for choice in chunk["choices"]:
            self._choice(choice)

    def _choice(self, choice: object) -> None:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict) or choice.get("index") != 0:
            self._is_plain = False
            return
        self._finish = choice.get("finish_reason") or self._finish
        for name, value in delta.items():
            if name == "role":
                self._message["role"] = value or "assistant"
            elif isinstance(value, str):
                self._message[name] = self._message.get(name, "") + value
            elif value:  # calls of tools come in pieces that are no texts
                self._is_plain = False


def again(completion: Mapping[str, Any]) -> dict[str, Any]:
    """Return a completion with an id and a time of its own, and with a usage: none, if nothing is known of it."""
    usage = completion.get("usage") or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {**completion, "id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "usage": usage}


def events(completion: Mapping[str, Any], *, with_usage: bool) -> Iterator[bytes]:
    """Yield a completion as the events of a stream.

    Args:
        completion: With one choice.
        with_usage: Whether a last chunk says how many tokens there were, as `stream_options.include_usage` asks.
    """
    head = {name: value for name, value in completion.items() if name not in ("choices", "usage", "object")}
    choice = completion["choices"][0]
    message = {name: value for name, value in choice["message"].items() if value is not None}

    def event(delta: Mapping[str, Any], finish: str | None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return _event({**head, "object": "chat.completion.chunk", "choices": choices})

    yield event({"role": message.get("role", "assistant"), "content": ""}, None)
    yield event({name: value for name, value in message.items() if name != "role"}, None)
    yield event({}, choice.get("finish_reason"))
    if with_usage:
        usage = completion.get("usage")
        yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield f"data: {DONE}\n\n".encode()


def error(sentence: str, *, kind: str) -> bytes:
    """Return an error as OpenAI's clients read it."""
    return json.dumps({"error": {"message": sentence, "type": kind, "param": None, "code": None}}).encode()


def error_event(sentence: str, *, kind: str) -> bytes:
    """Return an error as the last event of a stream that had begun, and may have broken off inside another."""
    return b"\n\ndata: " + error(sentence, kind=kind) + b"\n\n"


def _event(chunk: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode("utf-8", "surrogatepass")

"""What a chat server says, for tests of what stands in front of one."""

import json
from typing import Any


def completion(text: str | None, **message: Any) -> dict[str, Any]:
    """Return what an OpenAI-compatible server answers; further fields go into the message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"id": "chatcmpl-behind", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": usage}  # fmt: skip


def chunks(*pieces: str, finish: str | None = "stop", done: bool = True) -> list[bytes]:
    """Return the same as the events of a stream.

    Args:
        pieces: Of the text.
        finish: Why it ended; None leaves that event out.
        done: Whether the last event comes.
    """
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        *(({"content": piece}, None) for piece in pieces),
    ]
    if finish:
        deltas.append(({}, finish))
    found = [
        b"data: " + json.dumps({"id": "chatcmpl-behind", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).encode() + b"\n\n"
        for delta, reason in deltas
    ]  # fmt: skip
    return [*found, b"data: [DONE]\n\n"] if done else found

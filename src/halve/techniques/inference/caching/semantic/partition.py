"""Which requests may share answers: isolation by construction.

An OpenAI chat request is cut in two. The text of the last user message is what a semantic cache may vary; all the
rest, whatever it is, is the scope, and the hash of the scope is the partition. Nearest neighbours are searched for
inside one partition only, so an answer cannot cross to another tenant, prompt, tool set or format, however near the
two questions are.

Fields that this module does not know are part of the scope. So a field that an API adds tomorrow separates answers
until somebody decides that it need not.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from halve.errors import InvalidParameterError

JsonValue = None | bool | int | float | str | Sequence[Any] | Mapping[str, Any]
"""What JSON can hold; a mapping has texts as keys, all the way down."""

SCHEMA: Final = "halve.scope/1"

IGNORED_FIELDS: Final = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)
"""Fields of a request that do not change what is answered, only how it is sent, billed or filed."""

_OWN_FIELDS: Final = frozenset({"messages", "model", "tools", "response_format"})
_ONCE_ONLY: Final = frozenset({"audio", "logprobs", "top_logprobs", "web_search_options"})
"""Fields that ask for what belongs to one text, or to one moment."""

_INSTRUCTIONS: Final = frozenset({"system", "developer"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Scope:
    """All of a request that must be the same for two requests to share answers.

    Two scopes are equal if and only if they are equal as JSON: the order of keys, and whether a whole number is
    written 1 or 1.0, make no difference; everything else does.

    Args:
        tenant: Whose request it is.
        model: Which model is asked.
        system_prompt: The leading messages of the roles `system` and `developer`.
        tools: What the model may call.
        response_format: What form the answer must have.
        sampling: Every other field that may change the answer: temperature, seed, limits, stop words.
        prefix: The conversation between the system prompt and the last user text.
        data_version: Of whatever the answers depend on outside the request: an index of documents, a prompt library.
        encoder: Fingerprint of what makes vectors of texts.
    """

    tenant: str
    model: str
    system_prompt: JsonValue = None
    tools: JsonValue = None
    response_format: JsonValue = None
    sampling: JsonValue = None
    prefix: JsonValue = None
    data_version: str = ""
    encoder: str = ""

    def __eq__(self, other: object) -> bool:
        return _scope_bytes(self) == _scope_bytes(other) if isinstance(other, Scope) else NotImplemented

    def __hash__(self) -> int:
        return hash(_scope_bytes(self))


def partition_key(scope: Scope) -> bytes:
    """Return the SHA-256 of a scope's canonical JSON: 32 bytes, equal if and only if the scopes are.

    Canonical: keys sorted by code point, no spaces, whole floats as integers, UTF-8. Lone surrogates keep a form of
    their own, so that no two texts have the same bytes.

    Raises:
        InvalidParameterError: If a value is not JSON, or a key is not a text.
    """
    return hashlib.sha256(_scope_bytes(scope)).digest()


def from_chat_request(
    request: Mapping[str, Any], *, tenant: str, data_version: str = "", encoder: str = ""
) -> tuple[Scope, str] | None:
    """Return the scope of an OpenAI chat request and its last user text; None if it must not be cached semantically.

    None for: a last message that is not the user's, or does not end in a text; several answers (`n`); forced calls of
    tools; audio; log-probabilities and web search, whose results belong to one text or moment; and whatever is not a
    chat request. Parts that stand before the text in the last message belong to the scope.

    Args:
        request: The body, as parsed from JSON.
        tenant: Whose request it is.
        data_version: As in `Scope`.
        encoder: As in `Scope`.

    Raises:
        InvalidParameterError: If a value is not JSON, or a key is not a text.
    """
    messages, model = request.get("messages"), request.get("model")
    if not isinstance(messages, list) or not messages or not isinstance(model, str) or _is_once_only(request):
        return None
    if not all(isinstance(message, Mapping) and isinstance(message.get("role"), str) for message in messages):
        return None
    split = _last_text(messages[-1])
    if split is None:
        return None
    before, text = split
    first = next((i for i, message in enumerate(messages) if message.get("role") not in _INSTRUCTIONS), len(messages))
    known = _OWN_FIELDS | IGNORED_FIELDS
    scope = Scope(
        tenant=tenant,
        model=model,
        system_prompt=messages[:first],
        tools=request.get("tools"),
        response_format=request.get("response_format"),
        sampling={name: value for name, value in request.items() if name not in known},
        prefix=[*messages[first:-1], before],
        data_version=data_version,
        encoder=encoder,
    )
    _scope_bytes(scope)
    return scope, text


def cacheable(response: Mapping[str, Any]) -> bool:
    """Return whether an OpenAI chat response may be stored: one complete text, no error, no tool call, no refusal.

    A stream may be stored once it is put together; without its last event it has no `finish_reason` and is refused.
    """
    choices = response.get("choices")
    if response.get("error") is not None or not isinstance(choices, list) or len(choices) != 1:
        return False
    message = _message(response)
    if message is None or choices[0].get("finish_reason") != "stop":
        return False
    if any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio")):
        return False
    content = message.get("content")
    return isinstance(content, str) and content.strip() != ""


def content_digest(response: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of what a response says: ids, times and token counts left out.

    Raises:
        InvalidParameterError: If the response is not `cacheable`.
    """
    message = _message(response)
    if message is None or not cacheable(response):
        raise InvalidParameterError("response", rule="one complete text", value=type(response).__name__)
    return hashlib.sha256(str(message["content"]).encode("utf-8", "surrogatepass")).hexdigest()


def _message(response: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choice = response["choices"][0] if response.get("choices") else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    return message if isinstance(message, Mapping) else None


def _is_once_only(request: Mapping[str, Any]) -> bool:
    """Return whether the request asks for what another text's answer cannot give."""
    if request.get("n") not in (None, 1) or any(request.get(name) not in (None, False) for name in _ONCE_ONLY):
        return True
    if request.get("modalities") not in (None, ["text"]):
        return True
    return any(request.get(name) not in (None, "auto", "none") for name in ("tool_choice", "function_call"))


def _last_text(message: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return the last message without its text, and the text; None if it does not end in one of the user's."""
    content = message.get("content")
    if message.get("role") != "user" or not content:
        return None
    rest = {name: value for name, value in message.items() if name != "content"}
    if isinstance(content, list):
        last = content[-1]
        if not isinstance(last, Mapping) or last.get("type") != "text":
            return None
        others = {name: value for name, value in last.items() if name not in ("type", "text")}
        if len(content) > 1 or others:
            rest["content"] = [*content[:-1], others]
        content = last.get("text")
    return (rest, content) if isinstance(content, str) and content.strip() else None


def _scope_bytes(scope: Scope) -> bytes:
    values: dict[str, JsonValue] = {field.name: getattr(scope, field.name) for field in fields(scope)}
    return _canonical({"schema": SCHEMA, **values})


def _canonical(value: JsonValue) -> bytes:
    """Return one text per JSON value, and one JSON value per text.

    `json` would write the two halves of a surrogate pair and the character itself alike if it escaped them.
    """
    plain = _plain(value)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _plain(value: JsonValue) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidParameterError("a key of the scope", rule="a text", value=name)
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise InvalidParameterError("a value of the scope", rule="JSON", value=type(value).__name__)

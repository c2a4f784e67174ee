"""`endpoint.json`: which OpenAI-compatible server answers for a model, and how a text becomes a question of classes."""

import ipaddress
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from halve.core import documents
from halve.errors import ConfigError, InvalidParameterError, ModelError

Mode = Literal["log_probabilities", "sampled"]

RESERVED = frozenset(
    ("model", "messages", "max_tokens", "temperature", "seed", "n", "stream", "logprobs", "top_logprobs")
)
"""Members of a request that other fields of the endpoint decide."""

CHAT_PATH = "/chat/completions"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PLACEHOLDER = re.compile(r"\{(payload|labels)\}")
_KEY_NAME = re.compile(r"([A-Z][A-Z0-9_]*_)?API_KEY")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One classifier behind `POST {url}/chat/completions`.

    Args:
        schema: The version of this document.
        url: Base of the API, with its version: `http://127.0.0.1:8080/v1`. A key travels only over https, or to this
            host or the private network.
        model: What the server calls the model.
        labels: Names of the classes, at least 2: class k is the k-th label.
        prompt: The user's message. `{payload}` stands for the text; `{labels}` for one line `code: label` per class.
        system: The system's message; may hold `{labels}` instead of the prompt.
        codes: What the model writes for each label, one per label, capitals as it writes them; none may begin another,
            so that first tokens can tell them apart. None is A, B, C... up to 26 labels, and 01, 02, 03... above.
        mode: `log_probabilities` asks once per text, for the probabilities of one token; `sampled` asks `samples`
            times and counts.
        top_log_probabilities: For `log_probabilities`: how many tokens to ask for, in [2, 10000]. OpenAI allows 20.
        samples: For `sampled`: questions per text, in [1, 10000].
        temperature: For `sampled`: in (0, 2].
        max_tokens: For `sampled`: longest reply, at least 1.
        on_no_label: What an input gets where no reply named any label: an error, or equal probabilities.
        seed: Sent along, plus the number of the sample; None sends none.
        extra: Further members of every request, such as `{"cache_prompt": false}` for llama.cpp.
        timeout_seconds: Of connecting, and of every wait for bytes, > 0.
        retries: Further attempts after 408, 429, 5xx, a timeout or a lost connection, in [0, 20].
        backoff_seconds: Wait before the first retry, doubled for every next one, >= 0. `Retry-After` goes first.
        concurrency: Requests under way at once, in [1, 256].
        api_key_environment: Name of the environment variable that holds the key; it ends in `API_KEY`, so that a
            file from elsewhere cannot send out other secrets. The key itself is never written down.
    """

    schema: Literal["halve.endpoint/1"] = "halve.endpoint/1"
    url: str
    model: str
    labels: tuple[str, ...]
    prompt: str
    system: str | None = None
    codes: tuple[str, ...] | None = None
    mode: Mode = "log_probabilities"
    top_log_probabilities: int = 20
    samples: int = 8
    temperature: float = 1.0
    max_tokens: int = 8
    on_no_label: Literal["error", "uniform"] = "error"
    seed: int | None = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float = 60.0
    retries: int = 4
    backoff_seconds: float = 0.5
    concurrency: int = 4
    api_key_environment: str | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_labels()
        self._check_prompt()
        parts = _split_url(self.url)
        taken = sorted(RESERVED & set(self.extra))
        if taken:
            raise InvalidParameterError("extra", rule=f"without {', '.join(sorted(RESERVED))}", value=taken)
        if self.api_key_environment is None:
            return
        if not _KEY_NAME.fullmatch(self.api_key_environment):
            rule = "the NAME of an environment variable that ends in API_KEY, in capitals"
            raise InvalidParameterError("api_key_environment", rule=rule, value="another text")  # It may be a key.
        if parts.scheme == "http" and not _is_private(str(parts.hostname)):
            rule = "https where a key is sent over the internet"
            raise InvalidParameterError("url", rule=rule, value=self.url)

    @property
    def chat_url(self) -> str:
        """Where requests go."""
        return f"{self.url.rstrip('/')}{CHAT_PATH}"

    @property
    def label_codes(self) -> tuple[str, ...]:
        """What the model writes for each label, in the order of classes."""
        if self.codes is not None:
            return self.codes
        if len(self.labels) <= len(LETTERS):
            return tuple(LETTERS[: len(self.labels)])
        width = len(str(len(self.labels)))  # Of one width, no number begins another.
        return tuple(f"{number:0{width}d}" for number in range(1, len(self.labels) + 1))

    def messages(self, payload: str) -> list[dict[str, str]]:
        """Return the chat that asks for the class of this text."""
        lines = "\n".join(f"{code}: {label}" for code, label in zip(self.label_codes, self.labels, strict=True))
        values = {"payload": payload, "labels": lines}

        def filled(template: str) -> str:  # In one pass: a text that holds "{labels}" stays as it is.
            return _PLACEHOLDER.sub(lambda found: values[found[1]], template)

        chat = [{"role": "user", "content": filled(self.prompt)}]
        return chat if self.system is None else [{"role": "system", "content": filled(self.system)}, *chat]

    def _check_numbers(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "top_log_probabilities": (2, 10_000),
            "samples": (1, 10_000),
            "max_tokens": (1, math.inf),
            "retries": (0, 20),
            "backoff_seconds": (0, math.inf),
            "concurrency": (1, 256),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                rule = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
                raise InvalidParameterError(name, rule=rule, value=value)
        if not 0 < self.temperature <= 2:
            raise InvalidParameterError("temperature", rule="in (0, 2]", value=self.temperature)
        if not 0 < self.timeout_seconds < math.inf:
            raise InvalidParameterError("timeout_seconds", rule="positive", value=self.timeout_seconds)

    def _check_labels(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels) or not all(map(str.strip, self.labels)):
            raise InvalidParameterError("labels", rule="at least 2 names, all different", value=list(self.labels))
        codes = self.label_codes
        if len(codes) != len(self.labels):
            raise InvalidParameterError("codes", rule=f"one per label, {len(self.labels)}", value=len(codes))
        bad = [code for code in codes if not code or any(map(str.isspace, code))]
        if bad:
            raise InvalidParameterError("codes", rule="texts without blanks", value=bad)
        ordered = sorted(codes)  # Sorted, a code is followed by those that it begins.
        for first, second in itertools.pairwise(ordered):
            if second.startswith(first):
                raise InvalidParameterError("codes", rule="such that none begins another", value=[first, second])

    def _check_prompt(self) -> None:
        if "{payload}" not in self.prompt:
            raise InvalidParameterError("prompt", rule="a text that holds {payload}", value=self.prompt)
        if "{labels}" not in self.prompt + (self.system or ""):
            rule = "a text that holds {labels}, here or in system"
            raise InvalidParameterError("prompt", rule=rule, value=self.prompt)


def load_endpoint(path: Path, *, owner: str) -> Endpoint:
    """Read an endpoint file of the model `owner`.

    Raises:
        ModelError: If it is no JSON, or breaks a rule; names the file, the field, the rule and the value.
    """
    source = f"{path.name} of model {owner!r}"
    try:
        return documents.parse(Endpoint, json.loads(path.read_text(encoding="utf-8")), source=source)
    except OSError as error:
        raise ModelError(f"{source} cannot be read: {error.strerror}.") from error
    except ConfigError as error:
        raise ModelError(str(error)) from None
    except ValueError as error:
        raise ModelError(f"{source} must be JSON. Got: {error}.") from None


def save_endpoint(endpoint: Endpoint, path: Path) -> None:
    """Write an endpoint as `load_endpoint` reads it; atomically."""
    with documents.replace_file(path) as partial:
        partial.write_text(documents.dumps(endpoint, indent=2) + "\n", encoding="utf-8")


def _split_url(url: str) -> SplitResult:
    rule = "http:// or https://, a host, and a path without user, password, query or fragment"
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # Reading it raises ValueError where it is no port.
    except ValueError:
        raise InvalidParameterError("url", rule=rule, value=url) from None
    if "@" in url:
        raise InvalidParameterError("url", rule=rule, value="a URL with '@'")  # It may hold a password.
    plain = url.isascii() and url.isprintable() and " " not in url and not set("?#") & set(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid or not plain:
        raise InvalidParameterError("url", rule=rule, value=url)
    return parts


def _is_private(host: str) -> bool:
    """Return whether a host is this machine, or one that only the private network knows."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal"))

"""JSON over HTTP with the standard library: connections that are kept, retries that wait, and no key in any message.

It asks no proxy and follows no redirect: what is sent goes to the host that the file names, or nowhere.
"""

import http.client
import json
import random
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, final
from urllib.parse import urlsplit

MOST_WAIT_SECONDS = 120.0
"""A server that asks for a longer pause is not waited for."""

MOST_REPLY_BYTES = 64 * 2**20
_QUOTED = 300


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How patient a client is.

    Args:
        timeout_seconds: Of connecting, and of every wait for bytes.
        retries: Further attempts after 408, 429, 5xx, a timeout or a lost connection.
        backoff_seconds: Mean wait before the first retry; doubled for every next one.
    """

    timeout_seconds: float
    retries: int
    backoff_seconds: float


class HttpError(Exception):
    """What stood between a request and its JSON, in a few words without the key.

    Args:
        cause: What went wrong.
        is_endpoints: It would meet every request alike: no connection, a refused key, no such model or path.
    """

    def __init__(self, cause: str, *, is_endpoints: bool = False) -> None:
        self.cause, self.is_endpoints = cause, is_endpoints
        super().__init__(cause)


@final
class JsonClient:
    """Posts JSON to one host. Safe to call from several threads; each call in progress has its own connection."""

    def __init__(self, url: str, *, policy: Policy, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._path, self._policy, self._key = parts.path.rstrip("/"), policy, key
        self._host, self._port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "halve"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._idle: list[http.client.HTTPConnection] = []
        self._lock, self._closed = threading.Lock(), threading.Event()

    def connect(self) -> None:
        """Open a connection for later, once and without a request.

        Raises:
            HttpError: If the server does not take it.
        """
        connection = self._new()
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise HttpError(_lost(error), is_endpoints=True) from None
        self._keep(connection)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON that answers this body, retrying as the policy says.

        Raises:
            HttpError: If it does not come.
        """
        content = json.dumps(body).encode()
        for attempt in range(self._policy.retries + 1):
            try:
                status, headers, reply = self._exchange(path, content)
            except (OSError, http.client.HTTPException) as error:
                settled = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
                failure, asked = HttpError(_lost(error), is_endpoints=_is_unreachable(error)), None
            else:
                if status == 200:
                    return self._parsed(reply)
                failure, settled = self._refusal(status, reply), status not in (408, 429) and status < 500
                asked = retry_after_seconds(headers.get("Retry-After"))
            if settled or attempt == self._policy.retries:
                break
            if asked is not None and asked > MOST_WAIT_SECONDS:
                failure = HttpError(f"{failure.cause}, and asks to wait {asked:.0f} s")
                break
            wait = backoff_seconds(attempt, first=self._policy.backoff_seconds) if asked is None else asked
            if self._closed.wait(wait):
                raise HttpError("it was closed while a request waited")
        tries = "" if settled or attempt == 0 else f" (attempt {attempt + 1} of {self._policy.retries + 1})"
        raise HttpError(failure.cause + tries, is_endpoints=failure.is_endpoints)

    def close(self) -> None:
        """Close every idle connection, and end every wait for a retry."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(self, path: str, content: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            # The server may have ended an idle connection; that says nothing about this request.
            with suppress(ConnectionError, http.client.BadStatusLine):
                return self._send(connection, path, content)
        return self._send(self._new(), path, content)

    def _send(
        self, connection: http.client.HTTPConnection, path: str, content: bytes
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            connection.request("POST", self._path + path, content, self._headers)
            with connection.getresponse() as response:
                reply = response.read(MOST_REPLY_BYTES + 1)
                ends, missing = response.will_close, response.length
            if len(reply) > MOST_REPLY_BYTES:
                raise http.client.HTTPException(f"its reply is longer than {MOST_REPLY_BYTES} bytes")
            if missing:
                raise http.client.IncompleteRead(reply, missing)
        except BaseException:
            connection.close()
            raise
        if ends:
            connection.close()
        else:
            self._keep(connection)
        return response.status, response.headers, reply

    def _new(self) -> http.client.HTTPConnection:
        timeout = self._policy.timeout_seconds
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _parsed(self, reply: bytes) -> Any:
        try:
            return json.loads(reply)
        except (ValueError, RecursionError):
            raise HttpError(f"its reply must be JSON. Got {self.quoted(reply)}") from None

    def _refusal(self, status: int, reply: bytes) -> HttpError:
        known = http.client.responses.get(status, "")
        cause = f"HTTP {status} {known}".rstrip()
        if status in (401, 403):  # Such replies like to repeat the key.
            return HttpError(f"{cause}: the key was refused", is_endpoints=True)
        if 300 <= status < 400:
            return HttpError(f"{cause}: redirects are not followed", is_endpoints=True)
        said = self.quoted(_message(reply))
        return HttpError(f"{cause}: {said}" if said else cause, is_endpoints=status in (404, 405))

    def quoted(self, text: bytes | str) -> str:
        """Return the start of a reply on one line, without the key."""
        plain = text.decode(errors="replace") if isinstance(text, bytes) else text
        if self._key:
            plain = plain.replace(self._key, "***")
        plain = " ".join(plain.split())
        return plain if len(plain) <= _QUOTED else f"{plain[: _QUOTED - 3]}..."


def backoff_seconds(attempt: int, *, first: float) -> float:
    """Return the wait after attempt 0, 1, 2...: first * 2^attempt, times a random factor in [0.5, 1.5), at most 120 s.

    The factor keeps requests that failed together from coming back together.
    """
    return min(first * 2.0**attempt * (0.5 + random.random()), MOST_WAIT_SECONDS)


def retry_after_seconds(value: str | None, *, now: datetime | None = None) -> float | None:
    """Return what a `Retry-After` header asks for: seconds, or a date (RFC 9110, 10.2.3); None if it says nothing."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _is_unreachable(error: Exception) -> bool:
    """Return whether no connection came about; one that is cut, or too slow, may be the fault of its request."""
    return isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionResetError | BrokenPipeError)


def _lost(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return "no reply in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _message(reply: bytes) -> bytes | str:
    """Return `error.message` of an OpenAI-compatible error, or the reply as it is."""
    try:
        data = json.loads(reply)
    except (ValueError, RecursionError):
        return reply
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else reply

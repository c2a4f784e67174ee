"""The server behind the cache, asked over HTTP."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, final
from urllib.parse import unquote, urlsplit

from halve.errors import EnvironmentFailedError, InvalidParameterError, MissingExtraError
from halve.serving.asgi import Headers

if TYPE_CHECKING:
    from httpx2 import Response

CONNECT_SECONDS = 10.0
READ_SECONDS = 600.0
"""A model may think for long before its first byte."""

MOST_CONNECTIONS = 1_000

_ONE_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Headers of one connection: RFC 9110, 7.6.1."""

_OURS = frozenset({b"host", b"content-length", b"accept-encoding", b"expect"})


class UpstreamError(EnvironmentFailedError):
    """No whole reply came from the server behind."""


@final
class Upstream:
    """Asks one server. It follows no redirect and asks no proxy: what is sent goes where the operator said.

    Args:
        url: Of the server, with `/v1` where it has one.
        key: Sent as a bearer token instead of what the caller brings, if given.

    Raises:
        InvalidParameterError: If the URL is none.
        MissingExtraError: If the HTTP client is not installed.
    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        parts = urlsplit(url)
        extras = parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in ("http", "https") or not parts.hostname or extras:
            rule = "an http or https URL such as http://host/v1, without a user or a query"
            raise InvalidParameterError("upstream", rule=rule, value=url if not extras else "one with more")
        if key is not None and not (key.isascii() and key.isprintable() and key and " " not in key):
            raise InvalidParameterError("upstream_key", rule="printable ASCII without blanks", value="something else")
        try:
            import httpx2
        except ImportError:
            raise MissingExtraError("halve cache serve", package="httpx2", extra="serve") from None
        self._url, self._key, self._failures = url.rstrip("/"), key, (httpx2.HTTPError, httpx2.StreamError)
        self._client = httpx2.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # one caller's must not go with another's
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS),
            trust_env=False,
        )

    @asynccontextmanager
    async def asked(
        self, method: str, path: str, *, query: str, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> AsyncIterator["Reply"]:
        """Send a request, and give back its reply, whose body is still to come.

        Args:
            method: Such as POST.
            path: Behind the URL, beginning with a slash, percent-encoded as it came.
            query: Behind the question mark; may be empty.
            headers: Of the caller; those of its connection stay behind.
            body: May be empty.

        Raises:
            UpstreamError: If there is no reply, or it ends early.
            InvalidParameterError: If the path leads out of the URL, or is none.
        """
        import httpx2

        if any(unquote(segment) in (".", "..") for segment in path.split("/")):
            raise InvalidParameterError("path", rule="without . and ..", value=path)
        url = f"{self._url}{path}" + (f"?{query}" if query else "")
        try:
            request = self._client.build_request(method, url, headers=self._sent(headers), content=body)
        except httpx2.InvalidURL:
            raise InvalidParameterError("path", rule="part of a URL", value=path) from None
        try:
            response = await self._client.send(request, stream=True)
            try:
                yield Reply(response, self._failures)
            finally:
                await response.aclose()
        except self._failures as failure:
            raise _failed(failure) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _sent(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        kept = [(name, value) for name, value in _passed_on(headers) if name not in _OURS]
        if self._key is not None:
            kept = [(name, value) for name, value in kept if name != b"authorization"]
            kept.append((b"authorization", f"Bearer {self._key}".encode()))
        return [*kept, (b"accept-encoding", b"identity")]  # what goes by must be readable


@final
class Reply:
    """What came back: status, headers, and the body as it comes."""

    def __init__(self, response: "Response", failures: tuple[type[Exception], ...]) -> None:
        self._response, self._failures = response, failures
        self.status: int = response.status_code

    @property
    def headers(self) -> Headers:
        """Headers to pass on: without those of the connection, without the length, and without ours."""
        return [
            (name, value)
            for name, value in _passed_on(self._response.headers.raw)
            if name != b"content-length" and not name.startswith(b"x-halve-")
        ]

    @property
    def length(self) -> Headers:
        """The header that says how long the body is, if there is one."""
        found = self._response.headers.get("content-length")
        return [] if found is None else [(b"content-length", str(found).encode())]

    @property
    def is_stream(self) -> bool:
        """Whether the body is a stream of events that can be read."""
        kind = str(self._response.headers.get("content-type", "")).lower()
        return kind.startswith("text/event-stream") and "content-encoding" not in self._response.headers

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            UpstreamError: If it ends early.
        """
        try:
            async for part in self._response.aiter_raw():
                yield part
        except self._failures as failure:
            raise _failed(failure) from None

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: If it ends early.
        """
        return b"".join([part async for part in self.parts()])


def _passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return headers, names in small letters, without those of one connection: RFC 9110, 7.6.1."""
    small = [(name.lower(), value) for name, value in headers]
    named = {word.strip().lower() for name, value in small if name == b"connection" for word in value.split(b",")}
    return [(name, value) for name, value in small if name not in _ONE_HOP and name not in named]


def _failed(failure: Exception) -> UpstreamError:
    from httpx2 import LocalProtocolError

    said = " ".join(str(failure).split()) or type(failure).__name__
    if isinstance(failure, LocalProtocolError):  # its text repeats the header, which may be the key
        said = "the request has a header that HTTP forbids"
    return UpstreamError(f"the server behind the cache gave no whole reply: {said}")

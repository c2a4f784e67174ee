"""The ASGI application in front of a chat endpoint: look up, merge with what is in flight, else ask and remember."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final

import numpy as np
from numpy.typing import NDArray

from halve.errors import HalveError, InvalidParameterError
from halve.serving.asgi import TEXT, Headers, Receive, Scope, Send, read_body, reply
from halve.serving.chat import completions
from halve.serving.chat.metrics import ChatMetrics, Outcome
from halve.serving.chat.upstream import Reply, Upstream, UpstreamError
from halve.serving.gateway.remembering import Remembering
from halve.serving.http_server import OnStarted

CHAT_PATH = "/v1/chat/completions"
PREFIX = "/v1"

log = logging.getLogger("halve.serving")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatQuestion:
    """What of a request a cache may vary, and what must be the same.

    Args:
        partition: All else of the request, hashed: answers never cross to another.
        text: The last user text.
    """

    partition: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChatFound:
    """What a look-up found.

    Args:
        how: An identical text, a near one, or nothing.
        completion: The stored one; None for a miss.
        probability: That it is right, in [0, 1].
        vector: Of the question, if it was made.
    """

    how: Literal["exact", "semantic", "miss"]
    completion: Mapping[str, Any] | None = None
    probability: float = 0.0
    vector: NDArray[np.float32] | None = None


class ChatMemory(Protocol):
    """A cache of chat completions. `find` is called from one thread at a time, `remember` from another."""

    @property
    def usd_per_answer(self) -> float:
        """What one call of the server behind costs; 0 if unknown."""
        ...

    def question(self, request: Mapping[str, Any], *, tenant: str) -> ChatQuestion | None:
        """Return what is asked; None if the request must go to the server behind."""
        ...

    def find(self, question: ChatQuestion) -> ChatFound:
        """Look up a question. May take milliseconds."""
        ...

    def storable(self, completion: Mapping[str, Any]) -> bool:
        """Return whether a completion may answer another request: one whole text, no error, no tool call."""
        ...

    def remember(
        self, question: ChatQuestion, completion: Mapping[str, Any], vector: NDArray[np.float32] | None
    ) -> None:
        """Store a completion; it is on disk when this returns."""
        ...

    def close(self) -> None:
        """Write what is noted and let go. May be called twice."""
        ...


class Landed(Protocol):
    """A result, and how it was come by."""

    @property
    def value(self) -> Any:
        """The result."""
        ...

    @property
    def led(self) -> bool:
        """Whether this request's own work made it."""
        ...


class Flights(Protocol):
    """Merges requests in flight; called on one event loop."""

    async def do(
        self, partition: bytes, text: str, work: Callable[[], Awaitable[Any]], *, vector: Any | None = None
    ) -> Landed:
        """Return the result of `work`, or of the work of a request in flight that asks the same."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChatLimits:
    """What the server refuses rather than risk.

    Args:
        body_bytes: Longest request body; longer ones get 413.
        drain_seconds: How long a shutdown waits for requests that were already accepted.
    """

    body_bytes: int = 16 * 2**20
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        for name in ("body_bytes", "drain_seconds"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"limits.{name}", rule="at least 1", value=getattr(self, name))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Made:
    """What the server behind answered, for those that waited for the same."""

    status: int
    headers: Headers
    body: bytes
    completion: Mapping[str, Any] | None


@dataclass(kw_only=True, eq=False)
class _Call:
    """One request under way."""

    scope: Scope
    send: Send
    body: bytes
    request: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "bypass"
    status: int = 0

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        sent = [*headers, (b"x-halve-cache", self.outcome.encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": sent})

    async def more(self, part: bytes, *, is_last: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": not is_last})

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.more(body, is_last=True)

    async def refuse(self, status: int, sentence: str, *, kind: str) -> None:
        await self.whole(status, completions.error(sentence, kind=kind), [(b"content-type", b"application/json")])

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self.scope["headers"] if key == name), b"")


@final
class ChatApp:
    """Answers chat completions from a memory where it may, and passes everything else under `/v1` on.

    Each answer says in `x-halve-cache` where it comes from. A cache that fails costs hits and no request.

    Args:
        upstream: The server behind.
        memory: Closed with this.
        flights: Merges requests in flight.
        tenant_header: Requests share answers if they have the same value there; None: all do.
        limits: What is refused.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        memory: ChatMemory,
        flights: Flights,
        tenant_header: str | None = "authorization",
        limits: ChatLimits | None = None,
    ) -> None:
        self.limits, self.metrics = limits or ChatLimits(), ChatMetrics()
        self._upstream, self._memory, self._flights = upstream, memory, flights
        self._tenant_header = None if tenant_header is None else tenant_header.lower().encode()
        self._writing = Remembering(memory)
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="halve-lookup")
        self._told: OnStarted | None = None
        self._failed = False

    def on_started(self, told: OnStarted) -> "ChatApp":
        """Note who is told that requests are taken; returns itself."""
        self._told = told
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI asks."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if self._told is not None:
            self._told(None)
        await receive()
        await self._upstream.close()
        self._looking.shutdown()
        await asyncio.to_thread(self._writing.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == "/healthz":
            await reply(send, 200, b'{"live": true}')
        elif path == "/metrics":
            await reply(send, 200, self.metrics.render(), content_type=TEXT)
        elif path.startswith(f"{PREFIX}/"):
            await self._timed(scope, receive, send)
        else:
            sentence = f"the path must begin with {PREFIX}/, or be /healthz or /metrics. Got {path!r}."
            await reply(send, 404, completions.error(sentence, kind="invalid_request_error"))

    async def _timed(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, limit=self.limits.body_bytes)
        began, call = time.perf_counter(), _Call(scope=scope, send=send, body=body or b"")
        if body is None:
            sentence = f"the request body must be at most {self.limits.body_bytes} bytes. Got more."
            await reply(send, 413, completions.error(sentence, kind="invalid_request_error"))
            return
        is_chat = scope["path"] == CHAT_PATH and scope["method"] == "POST"
        call.outcome = "bypass" if is_chat else "passed"
        await _unless_gone(receive, self._answered(call) if is_chat else self._passed(call))
        self.metrics.finished(call.outcome, status=call.status, seconds=time.perf_counter() - began)

    async def _passed(self, call: _Call) -> None:
        try:
            await self._asked(call)
        except UpstreamError as error:
            await self._lost(call, error)

    async def _answered(self, call: _Call) -> None:
        try:
            request = json.loads(call.body)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            await call.refuse(400, "the request body must be a JSON object.", kind="invalid_request_error")
            return
        call.request = request
        asks = call.header(b"cache-control").lower()
        question = None if b"no-store" in asks else self._question(call)
        if question is None:
            await self._passed(call)
            return
        found = ChatFound(how="miss") if b"no-cache" in asks else await self._found(question)
        if found.completion is not None:
            call.outcome = found.how
            await self._sent(call, found.completion, probability=found.probability)
            self.metrics.saved(self._memory.usd_per_answer)
            return
        call.outcome = "miss"
        await self._merged(call, question, found)

    def _question(self, call: _Call) -> ChatQuestion | None:
        tenant = b"" if self._tenant_header is None else call.header(self._tenant_header)
        try:
            return self._memory.question(call.request, tenant=hashlib.sha256(tenant).hexdigest())
        except InvalidParameterError:  # not JSON as the standard knows it, such as NaN: the server behind may judge
            return None

    async def _found(self, question: ChatQuestion) -> ChatFound:
        began = time.perf_counter()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._looking, self._memory.find, question)
        except HalveError as error:
            if not self._failed:
                log.warning("the cache could not be asked: %s", error)
            self._failed = True
            return ChatFound(how="miss")
        self.metrics.looked_up(time.perf_counter() - began)
        return found

    async def _merged(self, call: _Call, question: ChatQuestion, found: ChatFound) -> None:
        """Ask the server behind, or wait for a request in flight that asks the same."""
        try:
            landed = await self._flights.do(
                question.partition, question.text, lambda: self._asked(call), vector=found.vector
            )
        except UpstreamError as error:
            await self._lost(call, error)
            return
        made: _Made = landed.value
        may_share = made.completion is not None and self._memory.storable(made.completion)
        if landed.led:
            if may_share:
                self._writing.put(question, made.completion, found.vector)
        elif may_share and made.completion is not None:
            call.outcome = "merged"
            await self._sent(call, made.completion)
            self.metrics.saved(self._memory.usd_per_answer)
        elif made.status != 200:
            call.outcome = "merged"
            await call.whole(made.status, made.body, made.headers)
        else:  # a call of a tool, say: not to be shared
            await self._passed(call)

    async def _asked(self, call: _Call) -> _Made:
        """Ask the server behind, and send what it answers while it comes."""
        path = call.scope["path"].removeprefix(PREFIX)
        query = call.scope.get("query_string", b"").decode("latin-1")
        headers = call.scope["headers"]
        async with self._upstream.asked(
            call.scope["method"], path, query=query, headers=headers, body=call.body
        ) as answer:
            if answer.is_stream:
                return await _streamed(call, answer)
            body = await answer.body()
            await call.whole(answer.status, body, answer.headers)
            completion = _completion(body) if answer.status == 200 and call.request else None
            return _Made(status=answer.status, headers=answer.headers, body=body, completion=completion)

    async def _sent(self, call: _Call, completion: Mapping[str, Any], *, probability: float | None = None) -> None:
        """Send a completion that another request led to, in the form that this one asks for."""
        own = completions.again(completion)
        headers: Headers = [] if probability is None else [(b"x-halve-probability", b"%.4f" % probability)]
        if not call.request.get("stream"):
            body = json.dumps(own, ensure_ascii=False).encode("utf-8", "surrogatepass")
            await call.whole(200, body, [(b"content-type", b"application/json"), *headers])
            return
        options = call.request.get("stream_options")
        with_usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
        await call.start(200, [(b"content-type", completions.EVENT_STREAM), *headers])
        for event in completions.events(own, with_usage=with_usage):
            await call.more(event)
        await call.more(b"", is_last=True)

    async def _lost(self, call: _Call, error: UpstreamError) -> None:
        if call.status == 0:
            await call.refuse(502, str(error), kind="upstream_error")
        else:  # its headers are gone: say it where the stream breaks off
            await call.more(completions.error_event(str(error), kind="upstream_error"), is_last=True)
            call.status = 502


async def _streamed(call: _Call, answer: Reply) -> _Made:
    """Pass a stream on while it comes, and put it together."""
    reader = completions.StreamReader()
    await call.start(answer.status, answer.headers)
    async for part in answer.parts():
        reader.feed(part)
        await call.more(part)
    await call.more(b"", is_last=True)
    completion = reader.completion() if answer.status == 200 else None
    return _Made(status=answer.status, headers=answer.headers, body=b"", completion=completion)


def _completion(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, unless the caller hangs up before it is done."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
    finally:
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
    if not working.cancelled() and (error := working.exception()) is not None:
        raise error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

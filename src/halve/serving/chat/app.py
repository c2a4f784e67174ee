"""The ASGI application in front of a chat endpoint: look up, merge with what is in flight, else ask and remember."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, final

from halve.errors import HalveError, InvalidParameterError
from halve.serving.asgi import TEXT, Headers, Receive, Scope, Send, read_body, reply
from halve.serving.chat import completions
from halve.serving.chat.call import Call
from halve.serving.chat.metrics import ChatMetrics
from halve.serving.chat.ports import ChatFound, ChatMemory, ChatQuestion, Flights
from halve.serving.chat.upstream import Reply, Upstream, UpstreamError
from halve.serving.gateway.remembering import Remembering
from halve.serving.http_server import OnStarted

CHAT_PATH: Final = "/v1/chat/completions"
PREFIX: Final = "/v1"

LOOKUP_SECONDS: Final = 2.0
"""A look-up that takes longer is a miss."""

PAUSE_SECONDS: Final = 30.0
"""So long nothing is looked up after a look-up has failed."""

LAST_WORDS_SECONDS: Final = 10.0
"""What the server behind has said whole is stored within this time, though the caller hangs up."""

_BESIDE_TENANT: Final = (b"openai-organization", b"openai-project")

log = logging.getLogger("halve.serving")


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
    completion: Mapping[str, Any] | None


@final
class ChatApp:
    """Answers chat completions from a memory where it may, and passes everything else under `/v1` on.

    Each answer says in `x-halve-cache` where it comes from. A cache that fails costs hits and no request.

    Args:
        upstream: The server behind.
        memory: Closed with this.
        flights: Merges requests in flight.
        tenant_header: Requests share answers if they have the same value there, and go past the cache without one;
            None: all share.
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
        self._looks_again_at = 0.0
        self._told: OnStarted | None = None

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
        self._looking.shutdown(wait=False, cancel_futures=True)
        await self._upstream.close()
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
        try:
            body = await read_body(scope, receive, limit=self.limits.body_bytes)
        except ConnectionResetError:
            return
        is_chat = scope["path"] == CHAT_PATH and scope["method"] == "POST"
        call = Call(scope=scope, send=send, body=body or b"", outcome="bypass" if is_chat else "passed")
        began = time.perf_counter()
        if body is None:
            sentence = f"the request body must be at most {self.limits.body_bytes} bytes. Got more."
            await call.refuse(413, sentence, kind="invalid_request_error")
        else:
            await _unless_gone(call, receive, self._answered(call) if is_chat else self._passed(call))
        self.metrics.finished(call.outcome, status=call.status, seconds=time.perf_counter() - began)

    async def _passed(self, call: Call) -> None:
        """Pass on a request that has no place in the cache, and its reply as it comes."""
        try:
            async with self._asking(call) as answer:
                await call.begin_stream(answer.status, [*answer.headers, *answer.length])
                async for part in answer.parts():
                    await call.pass_on(part)
                await call.end_stream()
        except InvalidParameterError as error:
            await call.refuse(400, str(error), kind="invalid_request_error")
        except UpstreamError as error:
            await _lost(call, error)

    def _asking(self, call: Call) -> Any:
        path = call.scope["raw_path"].decode("latin-1").removeprefix(PREFIX)
        query = call.scope.get("query_string", b"").decode("latin-1")
        return self._upstream.asked(
            call.scope["method"], path, query=query, headers=call.scope["headers"], body=call.body
        )

    async def _answered(self, call: Call) -> None:
        if call.headers(b"content-encoding"):
            await self._passed(call)
            return
        try:
            request = json.loads(call.body)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            await call.refuse(400, "the request body must be a JSON object.", kind="invalid_request_error")
            return
        call.request = request
        asks = b",".join(call.headers(b"cache-control")).lower()
        question = None if b"no-store" in asks else self._question(call)
        if question is None:
            await self._passed(call)
            return
        found = ChatFound(how="miss") if b"no-cache" in asks else await self._found(question)
        if found is not None and found.completion is not None:
            call.outcome = found.how
            await _sent(call, found.completion, probability=found.probability)
            self.metrics.saved(self._memory.usd_per_answer)
            return
        call.outcome = "miss"
        await self._merged(call, question, found)

    def _question(self, call: Call) -> ChatQuestion | None:
        """Return what is asked; None if nothing says whose it is, or it has no place in the cache."""
        values = [] if self._tenant_header is None else call.headers(self._tenant_header)
        if self._tenant_header is not None and len(values) != 1:
            return None
        beside = [value for name in _BESIDE_TENANT for value in (*call.headers(name), b"")]
        whose = [*values, *beside, call.scope.get("query_string", b"")]
        tenant = hashlib.sha256(b"".join(b"%d:%s" % (len(value), value) for value in whose)).hexdigest()
        try:
            return self._memory.question(call.request, tenant=tenant)
        except (HalveError, ValueError, RecursionError):  # stranger than JSON should be: the server behind may judge
            return None

    async def _found(self, question: ChatQuestion) -> ChatFound | None:
        """Return what is stored; None if the cache cannot say."""
        began = time.perf_counter()
        if began < self._looks_again_at:
            return None
        try:
            looking = asyncio.get_running_loop().run_in_executor(self._looking, self._memory.find, question)
            found = await asyncio.wait_for(looking, LOOKUP_SECONDS)
        except Exception as error:  # whatever ails the encoder or the disk: the server behind still answers
            said = error if isinstance(error, HalveError) else type(error).__name__
            log.warning("the cache could not be asked, and is left alone for %.0f s: %s", PAUSE_SECONDS, said)
            self._looks_again_at = time.perf_counter() + PAUSE_SECONDS
            return None
        self.metrics.looked_up(time.perf_counter() - began)
        return found

    async def _merged(self, call: Call, question: ChatQuestion, found: ChatFound | None) -> None:
        """Ask the server behind, or wait for a request in flight that asks the same."""
        vector = None if found is None else found.vector
        try:
            landed = await self._flights.do(question.partition, question.text, lambda: self._made(call), vector=vector)
        except UpstreamError as error:
            await _lost(call, error)
            return
        made: _Made = landed.value
        completion = made.completion
        may_share = completion is not None and self._memory.storable(completion)
        if landed.led:
            if may_share and found is not None:
                self._writing.put(question, completion, vector)
            await call.end_stream()
        elif may_share and completion is not None:
            call.outcome = "merged"
            await _sent(call, completion)
            self.metrics.saved(self._memory.usd_per_answer)
        elif made.status == 429 or made.status >= 500:
            call.outcome = "merged"
            sentence = f"the server behind the cache answered {made.status} to the same request"
            await call.refuse(made.status, sentence, kind="upstream_error")
        else:  # a call of a tool, say, or what was wrong with the other's key: not to be shared
            await self._passed(call)

    async def _made(self, call: Call) -> _Made:
        """Ask the server behind; what it answers is sent while it comes, as fast as this caller reads."""
        async with self._asking(call) as answer:
            if answer.is_stream:
                return await _streamed(call, answer)
            body = await answer.body()
            call.is_whole = True
            await call.begin_stream(answer.status, [*answer.headers, (b"content-length", b"%d" % len(body))])
            await call.pass_on(body)
            return _Made(status=answer.status, completion=_completion(body) if answer.status == 200 else None)


async def _streamed(call: Call, answer: Reply) -> _Made:
    """Pass a stream on while it comes, and put it together."""
    reader = completions.StreamReader()
    await call.begin_stream(answer.status, answer.headers)
    async for part in answer.parts():
        reader.feed(part)
        call.is_whole = reader.is_whole
        await call.pass_on(part)
    return _Made(status=answer.status, completion=reader.completion() if answer.status == 200 else None)


async def _sent(call: Call, completion: Mapping[str, Any], *, probability: float | None = None) -> None:
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


async def _lost(call: Call, error: UpstreamError) -> None:
    """Say that the server behind gave no whole reply."""
    if call.status == 0:
        await call.refuse(502, str(error), kind="upstream_error")
        return
    call.status = 502
    if not call.is_events:  # it breaks off here too
        call.drop()
        return
    await call.end_stream(completions.error_event(str(error), kind="upstream_error"))


def _completion(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


async def _unless_gone(call: Call, receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, unless the caller hangs up before the server behind has said all."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and call.is_whole:
            await asyncio.wait({working}, timeout=LAST_WORDS_SECONDS)
    finally:
        if not working.done():
            call.drop()
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
    if not working.cancelled() and (error := working.exception()) is not None:
        raise error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

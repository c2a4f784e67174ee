"""The gateway as an ASGI application: paths to answers, errors to status codes. No framework, on purpose."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import final

from halve.errors import AnswerError, EnvironmentFailedError, HalveError, InvalidParameterError
from halve.serving.asgi import TEXT, Receive, Scope, Send, read_body, reply
from halve.serving.gateway.chain import CACHE_STAGE, Answered
from halve.serving.gateway.gateway import Gateway
from halve.serving.gateway.protocol import parse_request, render_response
from halve.serving.http_server import OnStarted

NO_STAGE = "none"

log = logging.getLogger("halve.serving")


@final
class App:
    """Serves a gateway by the Open Inference Protocol v2, with `/healthz` and `/metrics`.

    Models load while the server is already live, so that a probe can tell "loading" from "dead".

    Args:
        gateway: What answers.
        on_started: Told, once, that every model is loaded, or why not.
    """

    def __init__(self, gateway: Gateway, *, on_started: OnStarted) -> None:
        self._gateway, self._on_started = gateway, on_started
        self._name = gateway.chain.stack.name
        cache = () if gateway.chain.stack.cache_stage is None else (CACHE_STAGE,)
        stages = (*cache, *(link.model.name for link in gateway.chain.links))
        self._depth = {stage: number for number, stage in enumerate(stages)}
        model = f"/v2/models/{self._name}"
        self._infer_path = f"{model}/infer"
        self._pages: dict[str, Callable[[], tuple[int, object]]] = {
            "/healthz": lambda: (200, {"live": True}),
            "/v2": lambda: (200, _server_metadata()),
            "/v2/health/live": lambda: (200, {"live": True}),
            "/v2/health/ready": self._readiness,
            model: lambda: (200, self._model_metadata()),
            f"{model}/ready": self._readiness,
        }
        self._starting: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI asks."""
        if scope["type"] == "http":
            if scope["path"] == self._infer_path and scope["method"] == "POST":
                await self._infer(scope, receive, send)
            else:
                await self._page(scope, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._starting = asyncio.create_task(self._start())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._gateway.close()
        await self._starting
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        try:
            await self._gateway.start()
        except HalveError as error:
            self._on_started(error)
        else:
            self._on_started(None)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, stage = time.perf_counter(), NO_STAGE
        try:
            body = await read_body(scope, receive, limit=self._gateway.limits.body_bytes)
            if body is None:
                status, page = 413, self._too_long()
            else:
                started = time.perf_counter()
                request = parse_request(body, takes=self._gateway.chain.takes)
                answers = await self._gateway.answer(request.payloads)
                stage = self._deepest(answers)
                labels = self._gateway.chain.labels
                status, page = 200, render_response(answers, request, model_name=self._name, labels=labels)
        except ConnectionResetError:
            return
        except HalveError as error:
            status, page = _status(error), _error(str(error))
        self._gateway.metrics.finished(stage=stage, status=status, seconds=time.perf_counter() - started)
        await reply(send, status, page)

    def _deepest(self, answers: list[Answered]) -> str:
        if len(answers) == 1:
            return answers[0].stage
        return max((answer.stage for answer in answers), key=self._depth.__getitem__)

    def _too_long(self) -> bytes:
        return _error(f"the request body must be at most {self._gateway.limits.body_bytes} bytes. Got more.")

    async def _page(self, scope: Scope, send: Send) -> None:
        path: str = scope["path"]
        is_known = path in self._pages or path in ("/metrics", self._infer_path)
        allowed = "POST" if path == self._infer_path else "GET"
        if is_known and scope["method"] != allowed:
            await reply(send, 405, _error(f"the method of {path} must be {allowed}. Got {scope['method']!r}."))
        elif path == "/metrics":
            await reply(send, 200, self._gateway.metrics.render(), content_type=TEXT)
        elif path in self._pages:
            status, page = self._pages[path]()
            await reply(send, status, _dumps(page))
        else:
            await reply(send, 404, _error(self._not_found(path)))

    def _not_found(self, path: str) -> str:
        parts = path.split("/")
        if path.startswith("/v2/models/") and parts[3] != self._name:
            return f"the model must be {self._name!r}. Got {parts[3]!r}."
        known = ", ".join((*self._pages, self._infer_path, "/metrics"))
        return f"the path must be one of {known}. Got {path!r}."

    def _readiness(self) -> tuple[int, object]:
        is_ready = self._gateway.is_ready
        return (200 if is_ready else 503), {"ready": is_ready}

    def _model_metadata(self) -> Mapping[str, object]:
        takes, labels = self._gateway.chain.takes, self._gateway.chain.labels
        item = takes.shape if takes.shape is not None else (() if takes.datatype == "BYTES" else (-1,))
        outputs = [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(labels) or -1]},
            {"name": "stage", "datatype": "BYTES", "shape": [-1]},
        ]
        return {
            "name": self._name,
            "platform": "halve",
            "inputs": [{"name": "input", "datatype": takes.datatype or "FP32", "shape": [-1, *item]}],
            "outputs": outputs,
            "parameters": {"labels": list(labels), "stages": list(self._depth)},
        }


def _server_metadata() -> Mapping[str, object]:
    from importlib.metadata import version

    return {"name": "halve", "version": version("halve"), "extensions": []}


def _status(error: HalveError) -> int:
    if isinstance(error, InvalidParameterError):
        return 400
    if isinstance(error, EnvironmentFailedError):
        return 503
    if isinstance(error, AnswerError):
        log.warning("%s", error)
    return 500


def _dumps(page: object) -> bytes:
    import orjson

    return orjson.dumps(page)


def _error(sentence: str) -> bytes:
    return _dumps({"error": sentence})

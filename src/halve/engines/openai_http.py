"""Asks an OpenAI-compatible server to classify texts: a teacher may be anything that answers chat completions.

Nothing is cached here: record the answers once (`halve.engines.recorded`), and pay once.
"""

import os
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from halve.core import Answerer, Model, Payload, Prediction
from halve.engines.endpoint import CHAT_PATH, Endpoint, load_endpoint
from halve.engines.files import only_file, verified_files
from halve.engines.http_json import HttpError, JsonClient, Policy
from halve.engines.replies import UnusableReplyError, probabilities_from_samples, probabilities_from_tokens
from halve.errors import AnswerError, InvalidParameterError, ModelError


@final
class OpenAiHttpEngine:
    """Loads models with exactly one `.json` file, an `Endpoint`. Payloads are texts."""

    name = "openai_http"

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Read the endpoint and connect to its server; see `halve.core.Engine`.

        Args:
            model: What to run.
            threads: Changes nothing; the endpoint says how many requests are under way at once.
            folder: What the model's file paths are relative to.

        Raises:
            ModelError: If the file breaks a rule, the key is not set, or the server takes no connection.
        """
        if threads < 1:
            raise InvalidParameterError("threads", rule="at least 1", value=threads)
        path = only_file(model, verified_files(model, folder=folder), suffix=".json")
        endpoint = load_endpoint(path, owner=model.name)
        client = JsonClient(endpoint.url, policy=_policy(endpoint), key=_key(endpoint, owner=model.name))
        try:
            client.connect()
        except HttpError as error:
            client.close()
            raise _unreachable(endpoint, model.name, error) from None
        return OpenAiHttpAnswerer(model.name, endpoint=endpoint, client=client)


@final
class OpenAiHttpAnswerer:
    """A server, and the threads that wait for it."""

    def __init__(self, name: str, *, endpoint: Endpoint, client: JsonClient) -> None:
        self._name, self._endpoint, self._client = name, endpoint, client
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(endpoint.concurrency, "halve-openai-http")

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return one answer per text, the most probable class; see `halve.core.Answerer`.

        Raises:
            AnswerError: If a payload is no text, or its reply cannot be used; the first such input is named.
            ModelError: If the server cannot be reached, refuses the key or knows no such model.
        """
        if self._threads is None:
            raise ModelError(f"model {self._name!r} is closed")
        for index, payload in enumerate(payloads):  # Before anything is paid for.
            if not isinstance(payload, str):
                raise AnswerError(self._name, index=index, cause="payload must be a text. Got a tensor")
        futures = [self._threads.submit(self._probabilities, str(payload)) for payload in payloads]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
        rows = [self._row(index, future) for index, future in enumerate(futures)]
        probabilities = np.stack(rows) if rows else np.empty((0, len(self._endpoint.labels)), np.float32)
        return Prediction(answers=np.argmax(probabilities, axis=1).astype(np.int64), probabilities=probabilities)

    def close(self) -> None:
        """End the threads and close the connections."""
        threads, self._threads = self._threads, None
        self._client.close()
        if threads is not None:
            threads.shutdown(cancel_futures=True)

    def _row(self, index: int, future: "Future[NDArray[np.float32]]") -> NDArray[np.float32]:
        """Return what one request gave. Requests start in order, so all before the first failure have run."""
        try:
            return future.result()
        except (HttpError, UnusableReplyError) as error:
            if error.is_endpoints:
                raise _unreachable(self._endpoint, self._name, error) from None
            cause = self._client.quoted(f"{self._endpoint.chat_url}: {error.cause}")
            raise AnswerError(self._name, index=index, cause=cause) from None

    def _probabilities(self, text: str) -> NDArray[np.float32]:
        endpoint = self._endpoint
        if endpoint.mode == "log_probabilities":
            return probabilities_from_tokens(self._client.post(CHAT_PATH, request_of(text, endpoint)), endpoint)
        replies = [
            self._client.post(CHAT_PATH, request_of(text, endpoint, sample=sample))
            for sample in range(endpoint.samples)
        ]
        return probabilities_from_samples(replies, endpoint)


def request_of(text: str, endpoint: Endpoint, *, sample: int = 0) -> dict[str, Any]:
    """Return the body of one chat completion.

    Log-probabilities are asked for at temperature 1: some servers divide by the temperature before they report. Samples
    are requests of their own, since servers bound `n`; each has its own seed.
    """
    body: dict[str, Any] = {**endpoint.extra, "model": endpoint.model, "messages": endpoint.messages(text)}
    if endpoint.mode == "log_probabilities":
        body |= {"max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": endpoint.top_log_probabilities}
    else:
        body |= {"max_tokens": endpoint.max_tokens, "temperature": endpoint.temperature}
    return body if endpoint.seed is None else {**body, "seed": endpoint.seed + sample}


def _policy(endpoint: Endpoint) -> Policy:
    return Policy(
        timeout_seconds=endpoint.timeout_seconds,
        retries=endpoint.retries,
        backoff_seconds=endpoint.backoff_seconds,
    )


def _key(endpoint: Endpoint, *, owner: str) -> str | None:
    """Return the key; its value stands in no message, also where it is malformed."""
    name = endpoint.api_key_environment
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ModelError(f"environment variable {name} must hold the API key of model {owner!r}. It is not set.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ModelError(
            f"environment variable {name} must be printable ASCII without blanks. It holds something else."
        )
    return key


def _unreachable(endpoint: Endpoint, owner: str, error: HttpError | UnusableReplyError) -> ModelError:
    return ModelError(f"the server of model {owner!r} must answer at {endpoint.chat_url}. Got: {error.cause}.")

"""One model as it is run: a queue, and one thread with its own answerer per replica."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import final

from halve.core import Answerer, Payload
from halve.errors import HalveError, ModelError
from halve.serving.gateway.batch_queue import BatchQueue
from halve.serving.gateway.chain import Link, LoadAnswerer
from halve.serving.gateway.isolate import Outcome, answer_isolated
from halve.serving.gateway.metrics import StationMetrics
from halve.serving.gateway.ticket import Ticket

OnBatch = Callable[[Sequence[Ticket], Outcome], None]
"""Called in the replica's thread, once per batch."""


@final
class Station:
    """The queue and the replicas of one model.

    Args:
        link: Model, deployment and acceptance.
        load: Loads the model.
        loading: Held while a replica loads: models are loaded one at a time.
        metrics: Counters of this model.
        on_batch: Told what became of each batch; must not raise.
    """

    def __init__(
        self, link: Link, *, load: LoadAnswerer, loading: threading.Lock, metrics: StationMetrics, on_batch: OnBatch
    ) -> None:
        self._link, self._load, self._loading = link, load, loading
        self._metrics, self._on_batch = metrics, on_batch
        self._queue: BatchQueue[Ticket] = BatchQueue(link.deployment.batch)
        self._threads: list[threading.Thread] = []

    def start(self) -> list[Future[None]]:
        """Start every replica; each future resolves once its model is loaded, or holds why it could not be."""
        loaded: list[Future[None]] = []
        for number in range(self._link.deployment.replica.replicas):
            future: Future[None] = Future()
            name = f"{self._link.model.name}-{number}"
            thread = threading.Thread(target=self._run, args=(future,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
            loaded.append(future)
        return loaded

    def put(self, tickets: Sequence[Ticket]) -> bool:
        """Queue tickets in order; False if the station is closed. Thread-safe."""
        return self._queue.put(tickets)

    def close(self) -> list[Ticket]:
        """Let every replica finish its batch, close its model and stop; return the tickets nobody took."""
        left = self._queue.close()
        for thread in self._threads:
            thread.join()
        return left

    def _run(self, loaded: Future[None]) -> None:
        try:
            with self._loading:
                answerer = self._load(self._link.model, self._link.deployment.threads)
        except HalveError as error:
            loaded.set_exception(error)
            return
        except Exception as error:  # a loader is foreign code; what it raises must reach the caller
            loaded.set_exception(ModelError(f"model {self._link.model.name!r} cannot be loaded: {error!r}"))
            return
        loaded.set_result(None)
        try:
            self._serve(answerer)
        finally:
            answerer.close()

    def _serve(self, answerer: Answerer) -> None:
        vcpus = self._link.deployment.threads
        while (batch := self._queue.take()) is not None:
            started = time.perf_counter()
            payloads: list[Payload] = [ticket.payload for ticket in batch.items]
            outcome = answer_isolated(answerer, payloads, link=self._link)
            busy_seconds = (time.perf_counter() - started) * vcpus
            self._metrics.ran(waited_seconds=batch.waited_seconds, vcpu_seconds=busy_seconds)
            self._on_batch(batch.items, outcome)

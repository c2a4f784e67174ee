"""An open-loop load generator: each request leaves at its own time, whatever became of the others.

Latency counts from the time a request *should* have left (intended send time). A generator that waits for
answers before it sends, or counts from the real send, hides the queue that a slow server builds
(coordinated omission).
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final
from urllib.parse import urlsplit

import numpy as np

from halve.core import FloatArray
from halve.errors import InvalidParameterError, ReplayError
from halve.measure.replay.clock import precise_event_loop
from halve.measure.replay.connection import Exchange
from halve.measure.replay.pool import Pool
from halve.measure.replay.record import ReplayRecord, read_labels

HEAD_START_SECONDS = 0.05
WARM_UP_LANES = 8


def replay(
    url: str,
    *,
    model_name: str,
    arrival_seconds: FloatArray,
    bodies: Sequence[bytes],
    timeout_seconds: float = 30.0,
    warm_up: Sequence[bytes] = (),
    max_connections: int = 1024,
) -> ReplayRecord:
    """Send each body at its arrival time, and record what comes back. Runs its own event loop.

    Args:
        url: `http://host:port` of an Open Inference Protocol v2 server.
        model_name: The model to ask.
        arrival_seconds: float64 (n,), n >= 1, sorted, from 0.
        bodies: One encoded request per arrival; the same object may stand for many.
        timeout_seconds: A request fails this long after its intended send time.
        warm_up: Bodies sent and answered before the clock starts. A cache remembers them, so they should
            not occur in the trace.
        max_connections: Beyond them a request waits for a free connection; that counts as lateness.

    Raises:
        InvalidParameterError: If a value breaks its rule.
        ReplayError: If a warm-up request is not answered.
    """
    _check(arrival_seconds, bodies, timeout_seconds, max_connections)
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.port is None:
        raise InvalidParameterError("url", rule="http://host:port", value=url)
    path = f"/v2/models/{model_name}/infer"
    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        loop = runner.get_loop()
        pool = Pool(parts.hostname, parts.port, path=path, loop=loop, max_connections=max_connections)
        try:
            runner.run(_warm_up(pool, warm_up, timeout_seconds))
            trace = _Trace(pool, loop, arrival_seconds, bodies, timeout_seconds)
            with _quiet_collector():
                return runner.run(trace.play())
        finally:
            runner.run(pool.close())


def _check(arrivals: FloatArray, bodies: Sequence[bytes], timeout_seconds: float, max_connections: int) -> None:
    if len(arrivals) == 0 or not np.isfinite(arrivals).all() or arrivals[0] < 0 or np.any(np.diff(arrivals) < 0):
        rule = "at least 1, finite, sorted, from 0"
        raise InvalidParameterError("arrival_seconds", rule=rule, value=np.asarray(arrivals)[:5].tolist())
    if len(bodies) != len(arrivals):
        raise InvalidParameterError("bodies", rule=f"one per arrival, {len(arrivals)}", value=len(bodies))
    if not 0 < timeout_seconds < float("inf"):
        raise InvalidParameterError("timeout_seconds", rule="positive and finite", value=timeout_seconds)
    if max_connections < 1:
        raise InvalidParameterError("max_connections", rule="at least 1", value=max_connections)


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keep the garbage collector out of the timings."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


async def _warm_up(pool: Pool, bodies: Sequence[bytes], timeout_seconds: float) -> None:
    for first in range(0, len(bodies), WARM_UP_LANES):
        lanes = [_asked(pool, body) for body in bodies[first : first + WARM_UP_LANES]]
        try:
            exchanges = await asyncio.wait_for(asyncio.gather(*lanes), timeout_seconds)
        except TimeoutError:
            raise ReplayError(f"a warm-up request must be answered within {timeout_seconds} s. It was not.") from None
        for exchange in exchanges:
            if exchange.status != 200:
                got = exchange.reason or f"{exchange.status}: {exchange.reply[:200]!r}"
                raise ReplayError(f"a warm-up request must be answered with 200. Got {got}.")


async def _asked(pool: Pool, body: bytes) -> Exchange:
    settled = asyncio.Event()
    exchange = Exchange(body, on_settled=settled.set)
    pool.submit(exchange)
    await settled.wait()
    return exchange


@final
class _Trace:
    """One trace, played once."""

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        arrivals: FloatArray,
        bodies: Sequence[bytes],
        timeout_seconds: float,
    ) -> None:
        self._pool, self._loop, self._timeout = pool, loop, timeout_seconds
        self._arrivals = arrivals
        self._due: list[float] = arrivals.tolist()
        self._exchanges = [Exchange(body, on_settled=self._one_settled) for body in bodies]
        self._next_sent = self._next_expiring = 0
        self._open = len(bodies)
        self._all_settled = asyncio.Event()

    async def play(self) -> ReplayRecord:
        """Send everything on time, wait for every answer or its timeout, and sum up."""
        self._start = self._loop.time() + HEAD_START_SECONDS
        self._loop.call_at(self._start + self._due[0], self._send_due)
        self._loop.call_at(self._start + self._due[0] + self._timeout, self._expire_due)
        await asyncio.sleep(HEAD_START_SECONDS / 2)
        processor_seconds, wall_seconds = time.process_time(), time.monotonic()
        await self._all_settled.wait()
        wall_seconds = time.monotonic() - wall_seconds
        return self._record(processor_share=(time.process_time() - processor_seconds) / wall_seconds)

    def _send_due(self) -> None:
        due, number = self._due, self._next_sent
        elapsed = self._loop.time() - self._start
        while number < len(due) and due[number] <= elapsed:
            self._pool.submit(self._exchanges[number])
            number += 1
        self._next_sent = number
        if number < len(due):
            self._loop.call_at(self._start + due[number], self._send_due)

    def _expire_due(self) -> None:
        elapsed = self._loop.time() - self._start - self._timeout
        while self._next_expiring < len(self._due) and self._due[self._next_expiring] <= elapsed:
            exchange = self._exchanges[self._next_expiring]
            self._next_expiring += 1
            if not exchange.is_settled:
                exchange.failed("timeout")
                self._pool.cancel(exchange)
        if self._next_expiring < len(self._due):
            self._loop.call_at(self._start + self._due[self._next_expiring] + self._timeout, self._expire_due)

    def _one_settled(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._all_settled.set()

    def _record(self, *, processor_share: float) -> ReplayRecord:
        intended = self._start + self._arrivals
        sent = np.array([exchange.sent_seconds or np.nan for exchange in self._exchanges])
        ended = np.array([exchange.ended_seconds or np.nan for exchange in self._exchanges])
        labels, stages, reasons = read_labels(self._exchanges)
        return ReplayRecord(
            latency_seconds=np.where([not reason for reason in reasons], ended - intended, np.nan),
            send_lateness_seconds=sent - intended,
            labels=labels,
            stages=stages,
            failures=dict(Counter(reason for reason in reasons if reason)),
            most_connections=self._pool.most_connections,
            client_cpu_share=processor_share,
            wall_seconds=float(np.nanmax(np.append(ended, intended[-1])) - self._start),
            started_monotonic_seconds=self._start,
        )

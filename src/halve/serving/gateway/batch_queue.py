"""Where requests wait for one model, and when a free replica takes them: exactly `core.BatchPolicy`.

Replicas take their own batches, under one condition variable: nothing polls, and a replica that
becomes free takes its next batch without asking the event loop.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from halve.core import BatchPolicy

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[T]):
    """What one replica runs together, oldest first, and how long each item waited for it."""

    items: list[T]
    waited_seconds: list[float]


@final
class BatchQueue(Generic[T]):
    """A first-in-first-out queue with the semantics of one batch policy. Thread-safe."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._waiting: deque[tuple[float, T]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._closed = False

    def put(self, items: Iterable[T]) -> bool:
        """Append items in order; False, and nothing is kept, if the queue is closed. Never blocks for long."""
        now = time.monotonic()
        with self._changed:
            if self._closed:
                return False
            was_empty = not self._waiting
            self._waiting.extend((now, item) for item in items)
            # The first item starts somebody's clock; a full batch ends it. Between them nobody need wake.
            if was_empty or len(self._waiting) >= self._policy.max_batch_size:
                self._changed.notify()
        return True

    def take(self) -> Batch[T] | None:
        """Wait for the next batch that the policy lets go; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                patience = self._seconds_to_wait()
                if patience is not None and patience <= 0:
                    return self._pop()
                self._changed.wait(patience)
        return None

    def _seconds_to_wait(self) -> float | None:
        """Return how long the oldest may still wait for company; None if nobody waits."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._policy.max_batch_size:
            return 0.0
        return self._waiting[0][0] + self._policy.max_wait_seconds - time.monotonic()

    def _pop(self) -> Batch[T]:
        size = min(len(self._waiting), self._policy.max_batch_size)
        taken = [self._waiting.popleft() for _ in range(size)]
        if self._waiting:
            self._changed.notify()  # more is left: another free replica must look at it
        now = time.monotonic()
        return Batch(items=[item for _, item in taken], waited_seconds=[now - since for since, _ in taken])

    def close(self) -> list[T]:
        """Wake every taker with None, and return what still waited."""
        with self._changed:
            self._closed = True
            left = [item for _, item in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        return left

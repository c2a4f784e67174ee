"""Writes answers into a memory, one after the other, beside the event loop: a disk must not hold up requests."""

import logging
import threading
from queue import Full, Queue
from typing import Any, Protocol, final

from halve.errors import HalveError

MOST_WAITING = 10_000
"""Answers that wait to be written; more are not remembered, which costs a later hit and no request."""

_log = logging.getLogger("halve.serving")


class Memory(Protocol):
    """What is told: an `AnswerMemory`, or one with other words for what it keeps."""

    @property
    def remember(self) -> Any:
        """Store an answer; on disk when it returns."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@final
class Remembering:
    """A thread that tells a memory what was answered.

    Args:
        memory: Closed with this.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._waiting: Queue[tuple[Any, ...] | None] = Queue(MOST_WAITING)
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="halve-remembering", daemon=True)
        self._thread.start()

    def put(self, *told: Any) -> bool:
        """Queue what `remember` will get; False if too much waits. Never blocks."""
        try:
            self._waiting.put_nowait(told)
        except Full:
            return False
        return True

    def close(self) -> None:
        """Write what waits, then close the memory. May be called twice."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        self._memory.close()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._memory.remember(*item)
            except Exception as error:  # the answer was given all the same: say it once, and go on
                if not self._failed:
                    said = error if isinstance(error, HalveError) else type(error).__name__
                    _log.warning("an answer could not be remembered: %s", said)
                self._failed = True

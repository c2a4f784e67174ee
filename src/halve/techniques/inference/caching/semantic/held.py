"""How many entries a partition holds, counted in the database now and then: a count reads all that it counts."""

import threading
import time
from collections.abc import Callable
from typing import Final, final

from halve.techniques.inference.caching.semantic.sql import Run, held

SECONDS_PER_ENTRY: Final = 1e-4
"""A count stands that long for each entry it read, so that counting takes one part in a thousand of the time."""

MOST_SECONDS: Final = 5.0
"""No count stands longer: other processes remove entries too."""


@final
class HeldCounts:
    """Entries by partition. Thread-safe.

    Args:
        read: Runs one statement that writes nothing.
        clock: Rising seconds.
        most_remembered: Counts, >= 1; then all are forgotten.
    """

    def __init__(
        self, read: Run, *, clock: Callable[[], float] = time.monotonic, most_remembered: int = 10_000
    ) -> None:
        self._read, self._clock, self._most_remembered = read, clock, most_remembered
        self._counts: dict[tuple[bytes, int], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def held(self, partition: bytes, *, at_most: int, now_seconds: float) -> int:
        """Return how many living entries a partition has, or had seconds ago; see `EntryStore.held`."""
        key, now = (partition, at_most), self._clock()
        with self._lock:
            count, until = self._counts.get(key, (0, now))
        if now < until:
            return count
        count = held(self._read, partition, at_most=at_most, now_seconds=now_seconds)
        with self._lock:
            if len(self._counts) >= self._most_remembered:
                self._counts.clear()
            self._counts[key] = count, now + min(SECONDS_PER_ENTRY * count, MOST_SECONDS)
        return count

    def forget(self) -> None:
        """Count anew from now on: entries were removed."""
        with self._lock:
            self._counts.clear()

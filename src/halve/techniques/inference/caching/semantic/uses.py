"""Hits that are noted and not yet written: a look-up must not wait for a disk."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, final

from halve.techniques.inference.caching.semantic.store import StoredEntry

Noted = Mapping[int, tuple[int, float]]
"""Number of an entry to its hits and the time of the last."""

MOST_NOTED: Final = 1_000
"""Entries; then they are written even if nothing is put."""


@final
class Uses:
    """Hits by entry. Thread-safe."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def note(self, entry: int, *, now_seconds: float) -> bool:
        """Note one hit; return whether it is time to write."""
        with self._lock:
            self._add(entry, 1, now_seconds)
            return len(self._noted) >= MOST_NOTED

    @contextmanager
    def taken(self) -> Iterator[Noted]:
        """Give what is noted, to be written; it is noted again if that fails."""
        with self._lock:
            taken, self._noted = self._noted, {}
        try:
            yield taken
        except BaseException:
            with self._lock:
                for entry, (hits, last) in taken.items():
                    self._add(entry, hits, last)
            raise

    def added_to(self, entry: StoredEntry) -> StoredEntry:
        """Return an entry with what is noted of it."""
        with self._lock:
            noted = self._noted.get(entry.entry)
        if noted is None:
            return entry
        last = max(entry.last_used_seconds, noted[1])
        return replace(entry, hits=entry.hits + noted[0], last_used_seconds=last)

    def _add(self, entry: int, hits: int, last_seconds: float) -> None:
        before, earlier = self._noted.get(entry, (0, last_seconds))
        self._noted[entry] = (before + hits, max(earlier, last_seconds))

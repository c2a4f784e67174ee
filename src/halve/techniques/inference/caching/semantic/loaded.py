"""The indexes of the partitions in use, kept in step with SQLite.

A partition is read when it is first searched and forgotten when memory is short. Entry numbers rise with every commit
and are never given twice, so what is new is what is above the highest number seen, whoever wrote it. What another
process removed is found out when its text is asked for (see `SQLiteStore.nearest`), and by a comparison now and then.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np

from halve.techniques.inference.caching.semantic.graph_files import GraphFiles
from halve.techniques.inference.caching.semantic.layered import LayeredIndex
from halve.techniques.inference.caching.semantic.sql import Run, in_chunks
from halve.techniques.inference.caching.semantic.store import FloatArray, IntArray

COMPARED_AFTER = 1_000
"""Additions to a partition, or a quarter of it if that is more; then it is compared with SQLite."""

STORED_TYPE = np.dtype("<f2")
"""Of the numbers of a vector in SQLite."""


@final
class LoadedPartitions:
    """Indexes by partition. Thread-safe.

    Args:
        read: Runs one statement on a connection that never writes.
        files: Saved graphs.
        dimension: Numbers in a vector.
        exact_entries: As in `LayeredIndex`.
        memory_bytes: When the indexes take more, those that were not used for longest are forgotten; one stays.
        save_every: A graph is saved after so many changes, or after a quarter of it has changed if that is more.
    """

    def __init__(
        self, *, read: Run, files: GraphFiles, dimension: int, exact_entries: int, memory_bytes: int, save_every: int
    ) -> None:
        self._read, self._files = read, files
        self._dimension, self._exact_entries = dimension, exact_entries
        self._memory_bytes, self._save_every = memory_bytes, save_every
        self._lock = threading.RLock()
        self._indexes: OrderedDict[bytes, LayeredIndex] = OrderedDict()
        self._sizes: dict[bytes, int] = {}
        self._added: dict[bytes, int] = {}
        self._total_bytes = 0
        self._version = -1
        self._seen = 0

    def search(self, partition: bytes, vector: FloatArray, *, count: int) -> tuple[list[int], list[float]]:
        """Return numbers and cosines, by falling cosine, of everything that is committed now."""
        with self._lock:
            self.catch_up()
            numbers, cosines = self._of(partition).search(vector, count=count)
        return numbers.tolist(), cosines.tolist()

    def catch_up(self) -> None:
        """Take in what was committed since the last time, by whichever process."""
        with self._lock:
            version = int(self._read("PRAGMA data_version", ())[0][0])
            if version == self._version:
                return
            query = "SELECT entry, partition_key FROM entries WHERE entry > ? ORDER BY entry"
            fresh: dict[bytes, list[int]] = {}
            if not self._indexes:
                self._seen = int(self._read("SELECT coalesce(max(entry), 0) FROM entries", ())[0][0])
            for entry, partition in self._read(query, (self._seen,)):
                fresh.setdefault(partition, []).append(entry)
                self._seen = entry
            for partition, entries in fresh.items():
                if (index := self._indexes.get(partition)) is not None:
                    index.add(*self._vectors(entries))
                    self._compare_if_due(partition, index, added=len(entries))
                    self._save_if_due(partition, index)
                    self._resize(partition, index)
            self._version = version

    def drop(self, removed: Iterable[tuple[int, bytes]]) -> None:
        """Take out entries that are no more, as (number, partition)."""
        gone: dict[bytes, list[int]] = {}
        for entry, partition in removed:
            gone.setdefault(partition, []).append(entry)
        with self._lock:
            for partition, entries in gone.items():
                if (index := self._indexes.get(partition)) is not None:
                    index.remove(entries)

    def settle(self, partition: bytes) -> None:
        """Read a partition and make its graph, whatever it takes, and save it."""
        with self._lock:
            self.catch_up()
            index = self._of(partition)
            index.settle_all()
            self._save(partition, index)

    def save(self) -> None:
        """Save every graph that has changed."""
        with self._lock:
            for partition, index in self._indexes.items():
                self._save(partition, index)

    def _of(self, partition: bytes) -> LayeredIndex:
        index = self._indexes.get(partition)
        if index is None:
            index = self._loaded(partition)
            self._indexes[partition] = index
            self._resize(partition, index)
        self._indexes.move_to_end(partition)
        return index

    def _loaded(self, partition: bytes) -> LayeredIndex:
        """Return the index of a partition: a saved graph, if there is one, and what is missing from it."""
        held = self._held(partition)
        graph = self._files.restore(partition) if len(held) > self._exact_entries else None
        index = LayeredIndex(dimension=self._dimension, exact_entries=self._exact_entries, graph=graph)
        missing = held
        if graph is not None:
            known = graph.numbers
            index.remove(np.setdiff1d(known, held).tolist())
            missing = np.setdiff1d(held, known)
        if len(missing):
            index.restore(*self._vectors(sorted(missing.tolist())))
        return index

    def _held(self, partition: bytes) -> IntArray:
        rows = self._read("SELECT entry FROM entries WHERE partition_key = ?", (partition,))
        return np.asarray([entry for (entry,) in rows], dtype=np.int64)

    def _compare_if_due(self, partition: bytes, index: LayeredIndex, *, added: int) -> None:
        """Take out what others removed, though nobody asks for it."""
        self._added[partition] = self._added.get(partition, 0) + added
        if self._added[partition] >= max(COMPARED_AFTER, len(index) // 4):
            self._added[partition] = 0
            index.remove(np.setdiff1d(index.numbers, self._held(partition)).tolist())

    def _vectors(self, entries: Sequence[int]) -> tuple[IntArray, FloatArray]:
        rows: list[tuple[Any, ...]] = []
        for marks, group in in_chunks(entries):
            query = f"SELECT entry, vector FROM vectors WHERE entry IN ({marks}) ORDER BY entry"
            rows.extend(self._read(query, group))
        return np.asarray([row[0] for row in rows], dtype=np.int64), decoded([row[1] for row in rows], self._dimension)

    def _resize(self, partition: bytes, index: LayeredIndex) -> None:
        """Note how large an index is now, and forget others if that is too much."""
        self._total_bytes += index.size_bytes - self._sizes.get(partition, 0)
        self._sizes[partition] = index.size_bytes
        while self._total_bytes > self._memory_bytes and len(self._indexes) > 1:
            oldest, forgotten = self._indexes.popitem(last=False)
            self._save(oldest, forgotten)
            self._total_bytes -= self._sizes.pop(oldest)
            self._added.pop(oldest, None)

    def _save_if_due(self, partition: bytes, index: LayeredIndex) -> None:
        if index.unsaved >= max(self._save_every, len(index) // 4):
            self._save(partition, index)

    def _save(self, partition: bytes, index: LayeredIndex) -> None:
        if index.graph is not None and index.graph.is_writable and index.unsaved:
            self._files.save(partition, index.graph)
            index.saved()


def encoded(vector: FloatArray) -> bytes:
    """Return a vector as SQLite holds it."""
    return vector.astype(STORED_TYPE).tobytes()


def decoded(blobs: Sequence[bytes], dimension: int) -> FloatArray:
    """Return vectors, float32 (n, d), at length 1 again after the rounding."""
    flat = np.frombuffer(b"".join(blobs), dtype=STORED_TYPE).astype(np.float32)
    rows = flat.reshape(len(blobs), dimension)
    directions: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return directions

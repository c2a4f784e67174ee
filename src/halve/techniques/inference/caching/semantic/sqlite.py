"""A semantic cache in one SQLite file: nothing to install, nothing to start.

SQLite is the truth: questions, answers and vectors are rows, written in one transaction, in WAL mode with a sync at
every commit. Indexes are made from it and are never needed to get an entry back. Many threads and several processes may
use one file; each sees what any of them committed at its next look-up.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import graph_files, sql
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.graph_files import GraphFiles
from halve.techniques.inference.caching.semantic.held import HeldCounts
from halve.techniques.inference.caching.semantic.layered import check_exact_entries
from halve.techniques.inference.caching.semantic.loaded import LoadedPartitions, decoded, encoded
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.sql import Run
from halve.techniques.inference.caching.semantic.sqlite_file import SQLiteFile
from halve.techniques.inference.caching.semantic.store import (
    MOST_DIMENSIONS,
    FloatArray,
    NewEntry,
    Stored,
    StoredEntry,
    checked_unit,
    to_text,
)
from halve.techniques.inference.caching.semantic.uses import Uses

EXACT_ENTRIES: Final = 4_000
"""Up to so many vectors of a partition are compared one by one."""

_TYPES = {
    "number": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "reference": "INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE",
    "bytes": "BLOB",
    "vector": "BLOB",
}


@final
class SQLiteStore:
    """Entries in a SQLite file; see `EntryStore`. Not to be carried through a fork.

    Args:
        path: The file; made if it is not there. Graphs of large partitions lie in a folder beside it.
        encoder: Fingerprint of what makes the vectors; a file that holds another's is refused.
        dimension: Numbers in a vector, in [1, 4000].
        limits: What the file may hold; anything if None.
        exact_entries: Partitions up to this size are searched exactly and without usearch, >= 1.
        memory_bytes: What indexes in memory may take.
        save_every: A graph is written after so many changes.

    Raises:
        InvalidParameterError: If a value breaks its rule, or the file holds another encoder's vectors.
        RunFolderError: If the file is no cache of halve.
        StorageError: If it cannot be opened or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoder: str,
        dimension: int,
        limits: Limits | None = None,
        exact_entries: int = EXACT_ENTRIES,
        memory_bytes: int = 2**30,
        save_every: int = 10_000,
    ) -> None:
        if not 1 <= dimension <= MOST_DIMENSIONS:
            raise InvalidParameterError("dimension", rule=f"in [1, {MOST_DIMENSIONS}]", value=dimension)
        check_exact_entries(exact_entries)
        self._dimension, self._limits = dimension, limits or Limits()
        self._uses = Uses()
        self._file = SQLiteFile(path)
        self._read, self._transaction = self._file.read, self._file.transaction
        self._held = HeldCounts(self._read)
        try:
            self._prepare(encoder)
        except BaseException:
            self._file.close()
            raise
        files = GraphFiles(
            path.with_name(f"{path.name}-graphs"), dimension=dimension, read=self._read, transaction=self._transaction
        )
        self._loaded = LoadedPartitions(
            read=self._read,
            files=files,
            dimension=dimension,
            exact_entries=exact_entries,
            memory_bytes=memory_bytes,
            save_every=save_every,
        )

    def __enter__(self) -> "SQLiteStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._dimension

    def __len__(self) -> int:
        return int(self._read("SELECT entries FROM totals", ())[0][0])

    @property
    def size_bytes(self) -> int:
        """Texts, answers, tags and vectors together, as `Limits` counts them."""
        return int(self._read("SELECT size_bytes FROM totals", ())[0][0])

    def put(self, entry: NewEntry) -> Stored:
        """Store an entry; see `EntryStore.put`."""
        return self.put_many([entry])[0]

    def put_many(self, entries: Sequence[NewEntry]) -> list[Stored]:
        """Store entries in one transaction; see `EntryStore.put_many`."""
        vectors = [encoded(checked_unit(entry.vector, dimension=self._dimension)) for entry in entries]
        with self._uses.taken() as uses:
            puts = self._transaction(lambda run: sql.put_many(run, entries, vectors, limits=self._limits, uses=uses))
        self._loaded.drop(gone for put in puts for gone in put.removed)
        self._loaded.catch_up()
        return [put.stored for put in puts]

    def get_exact(self, partition: bytes, key: bytes, *, now_seconds: float) -> StoredEntry | None:
        """Return an entry by its partition and key; see `EntryStore.get_exact`."""
        return self._one("e.partition_key = ? AND e.exact_key = ?", (partition, key), now_seconds=now_seconds)

    def get(self, entry: int, *, now_seconds: float) -> StoredEntry | None:
        """Return an entry by its number; see `EntryStore.get`."""
        return self._one("e.entry = ?", (entry,), now_seconds=now_seconds)

    def nearest(self, partition: bytes, vector: FloatArray, *, count: int, now_seconds: float) -> list[Neighbour]:
        """Return near entries of one partition; see `EntryStore.nearest`."""
        direction = checked_unit(vector, dimension=self._dimension)
        if count < 1:
            raise InvalidParameterError("count", rule="at least 1", value=count)
        asked = count
        while True:
            numbers, cosines = self._loaded.search(partition, direction, count=asked)
            found = self._neighbours(partition, numbers, cosines, now_seconds=now_seconds)
            if len(found) >= count or len(numbers) < asked:
                return found[:count]
            asked *= 2  # some were removed by another process, or their time is over

    def held(self, partition: bytes, *, at_most: int, now_seconds: float) -> int:
        """Return how many entries a partition holds; see `EntryStore.held`."""
        return self._held.held(partition, at_most=at_most, now_seconds=now_seconds)

    def vectors(self, entries: Sequence[int]) -> FloatArray:
        """Return vectors by number; see `EntryStore.vectors`."""
        vectors = np.zeros((len(entries), self._dimension), dtype=np.float32)
        rows: dict[int, bytes] = {}
        for marks, group in sql.in_chunks(entries):
            rows.update(self._read(f"SELECT entry, vector FROM vectors WHERE entry IN ({marks})", group))
        held = [place for place, entry in enumerate(entries) if entry in rows]
        if held:
            vectors[held] = decoded([rows[entries[place]] for place in held], self._dimension)
        return vectors

    def used(self, entry: int, *, now_seconds: float) -> None:
        """Note a hit; see `EntryStore.used`."""
        if self._uses.note(entry, now_seconds=now_seconds):
            self._write_uses()

    def invalidate(self, tag: str) -> int:
        """Remove the entries with a tag; see `EntryStore.invalidate`."""
        return self._dropped(self._transaction(lambda run: sql.remove_tagged(run, tag)))

    def expire(self, *, now_seconds: float) -> int:
        """Remove the entries whose time is over; see `EntryStore.expire`."""
        return self._dropped(self._transaction(lambda run: sql.remove(run, "expires_seconds <= ?", (now_seconds,))))

    def settle(self, partition: bytes) -> None:
        """Make and save the graph of a large partition now, instead of bit by bit; for before the traffic comes.

        Raises:
            MissingExtraError: If usearch is not installed and the partition is large.
        """
        self._loaded.settle(partition)

    def is_sound(self) -> bool:
        """Return whether SQLite finds no damage in the file. Reads all of it."""
        return self._file.is_sound()

    def close(self) -> None:
        """Write noted hits and changed graphs, and close the file."""
        try:
            self._write_uses()
            self._loaded.save()
        finally:
            self._file.close()

    def _prepare(self, encoder: str) -> None:
        source, dimension = self._file.path.name, self._dimension

        def work(run: Run) -> None:
            for table in (*sql.TABLES, graph_files.TABLE):
                run(table.format(**_TYPES), ())
            sql.check_meta(run, source=source, encoder=encoder, dimension=dimension)

        self._transaction(work)

    def _one(self, where: str, parameters: Sequence[Any], *, now_seconds: float) -> StoredEntry | None:
        found = sql.select_entry(self._read, where, parameters, now_seconds=now_seconds, vector="v.vector")
        if found is None:
            return None
        return self._uses.added_to(sql.as_stored(found, vector=decoded([found[0][4]], self._dimension)[0]))

    def _neighbours(
        self, partition: bytes, numbers: list[int], cosines: list[float], *, now_seconds: float
    ) -> list[Neighbour]:
        """Return what is in SQLite of these numbers, in their order; what is not there leaves the index."""
        rows: dict[int, tuple[bytes, str, float]] = {}
        for marks, group in sql.in_chunks(numbers):
            query = (
                "SELECT entry, text, answer_digest, expires_seconds FROM entries"
                f" WHERE entry IN ({marks}) AND +partition_key = ?"  # plus: by number, not through the partition
            )
            rows.update({row[0]: row[1:] for row in self._read(query, (*group, partition))})
        if len(rows) < len(numbers):
            self._loaded.drop([(number, partition) for number in numbers if number not in rows])
        return [
            Neighbour(entry=number, text=to_text(rows[number][0]), answer=rows[number][1], cosine=cosine)
            for number, cosine in zip(numbers, cosines, strict=True)
            if number in rows and rows[number][2] > now_seconds
        ]

    def _dropped(self, removed: sql.Removed) -> int:
        self._held.forget()
        self._loaded.drop(removed)
        return len(removed)

    def _write_uses(self) -> None:
        with self._uses.taken() as uses:
            if uses:
                self._transaction(lambda run: sql.write_uses(run, uses))

"""A semantic cache in PostgreSQL with pgvector, shared by many gateways.

The same tables and statements as in SQLite; vectors are `halfvec` under an HNSW index. Small partitions are compared
one by one, since an index over all partitions would look at others' vectors first; large ones ask the index, which goes
on until it has found enough of the partition (`hnsw.iterative_scan`, pgvector 0.8).
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, final

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import sql
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.held import HeldCounts
from halve.techniques.inference.caching.semantic.layered import check_exact_entries
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.postgres_connections import PostgresConnections
from halve.techniques.inference.caching.semantic.sql import Run
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

EXACT_ENTRIES: Final = 2_000
"""Up to so many vectors of a partition are compared one by one."""

_MOST_LARGE = 100_000
"""Large partitions that are remembered as such."""

_INDEX = (
    "CREATE INDEX IF NOT EXISTS vectors_near ON vectors USING hnsw (vector halfvec_cosine_ops)"
    " WITH (m = 16, ef_construction = 96)"
)
_INDEX_BY_PARTITION = "CREATE INDEX IF NOT EXISTS vectors_by_partition ON vectors (partition_key)"

_EXACTLY = """
SELECT n.entry, e.text, e.answer_digest, n.distance, n.held FROM (
    SELECT entry, vector <=> ?::halfvec AS distance, count(*) OVER () AS held
    FROM (SELECT entry, vector FROM vectors WHERE partition_key = ? AND expires_seconds > ? OFFSET 0) AS mine
    ORDER BY distance, entry LIMIT ?
) AS n JOIN entries AS e ON e.entry = n.entry ORDER BY n.distance, n.entry
"""
"""OFFSET 0 keeps the index over all partitions out of it."""

_NEARLY = """
SELECT n.entry, e.text, e.answer_digest, n.distance FROM (
    SELECT entry, vector <=> ?::halfvec AS distance FROM vectors
    WHERE partition_key = ? AND expires_seconds > ? ORDER BY vector <=> ?::halfvec LIMIT ?
) AS n JOIN entries AS e ON e.entry = n.entry ORDER BY n.distance, n.entry
"""


@final
class PostgresStore:
    """Entries in a PostgreSQL database; see `EntryStore`. Many processes may share it.

    Tables lie in a schema of their own, made if it is not there. The extension `vector` is made if it is not there.

    Args:
        url: As libpq takes it: `postgresql://user:password@host/database`.
        encoder: Fingerprint of what makes the vectors; a schema that holds another's is refused.
        dimension: Numbers in a vector, in [1, 4000].
        schema: Name of the schema: a lower-case word.
        limits: What the schema may hold; anything if None. Every process should give the same.
        exact_entries: Partitions up to this size are searched exactly, >= 1.

    Raises:
        InvalidParameterError: If a value breaks its rule, or the schema holds another encoder's vectors.
        MissingExtraError: If psycopg is not installed.
        StorageError: If the server cannot be reached, or refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        encoder: str,
        dimension: int,
        schema: str = "halve",
        limits: Limits | None = None,
        exact_entries: int = EXACT_ENTRIES,
    ) -> None:
        if not 1 <= dimension <= MOST_DIMENSIONS:
            raise InvalidParameterError("dimension", rule=f"in [1, {MOST_DIMENSIONS}]", value=dimension)
        if not (schema.isascii() and schema.isidentifier() and schema == schema.lower()):
            raise InvalidParameterError("schema", rule="a word of a-z, 0-9 and _", value=schema)
        check_exact_entries(exact_entries)
        self._dimension, self._schema = dimension, schema
        self._limits, self._exact_entries = limits or Limits(), exact_entries
        self._uses = Uses()
        self._large: dict[bytes, None] = {}
        self._connections = PostgresConnections(url, prepare=self._on_connect)
        self._read, self._transaction = self._connections.read, self._connections.transaction
        self._held = HeldCounts(self._read)
        try:
            self._transaction(lambda run: self._prepare(run, encoder))
        except BaseException:
            self._connections.close()
            raise

    def __enter__(self) -> "PostgresStore":
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
        vectors = [_written(checked_unit(entry.vector, dimension=self._dimension)) for entry in entries]
        with self._uses.taken() as uses:
            puts = self._transaction(lambda run: sql.put_many(run, entries, vectors, limits=self._limits, uses=uses))
        return [put.stored for put in puts]

    def get_exact(self, partition: bytes, key: bytes, *, now_seconds: float) -> StoredEntry | None:
        """Return an entry by its partition and key; see `EntryStore.get_exact`."""
        return self._one("e.partition_key = ? AND e.exact_key = ?", (partition, key), now_seconds=now_seconds)

    def get(self, entry: int, *, now_seconds: float) -> StoredEntry | None:
        """Return an entry by its number; see `EntryStore.get`."""
        return self._one("e.entry = ?", (entry,), now_seconds=now_seconds)

    def nearest(self, partition: bytes, vector: FloatArray, *, count: int, now_seconds: float) -> list[Neighbour]:
        """Return near entries of one partition; see `EntryStore.nearest`."""
        direction = _written(checked_unit(vector, dimension=self._dimension))
        if count < 1:
            raise InvalidParameterError("count", rule="at least 1", value=count)
        rows: list[tuple[Any, ...]] = []
        if partition in self._large:
            rows = self._read(_NEARLY, (direction, partition, now_seconds, direction, count))
        if len(rows) < count:  # the index may give up before it has found what is there
            rows = self._read(_EXACTLY, (direction, partition, now_seconds, count))
            self._remember(partition, held=int(rows[0][4]) if rows else 0)
        return [
            Neighbour(entry=int(row[0]), text=to_text(row[1]), answer=str(row[2]), cosine=_cosine(row[3]))
            for row in rows
        ]

    def held(self, partition: bytes, *, at_most: int, now_seconds: float) -> int:
        """Return how many entries a partition holds; see `EntryStore.held`."""
        return self._held.held(partition, at_most=at_most, now_seconds=now_seconds)

    def vectors(self, entries: Sequence[int]) -> FloatArray:
        """Return vectors by number; see `EntryStore.vectors`."""
        rows = self._read("SELECT entry, vector::real[] FROM vectors WHERE entry = ANY(?)", (list(entries),))
        held = {int(entry): np.asarray(vector, dtype=np.float32) for entry, vector in rows}
        vectors = np.zeros((len(entries), self._dimension), dtype=np.float32)
        for place, entry in enumerate(entries):
            if entry in held:
                vectors[place] = held[entry] / np.linalg.norm(held[entry])
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

    def close(self) -> None:
        """Write noted hits, and close the connections."""
        try:
            self._write_uses()
        finally:
            self._connections.close()

    def _on_connect(self, run: Run) -> None:
        """Say where the tables are, and how the index is searched; notices of what exists already are not wanted."""
        run("SET client_min_messages = warning", ())
        run(f"SET search_path = {self._schema}, public", ())
        run("SET hnsw.iterative_scan = strict_order", ())
        run("SET hnsw.ef_search = 64", ())

    def _prepare(self, run: Run, encoder: str) -> None:
        run("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public", ())
        run(f"CREATE SCHEMA IF NOT EXISTS {self._schema}", ())
        types = {
            "number": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            "reference": "BIGINT PRIMARY KEY REFERENCES entries ON DELETE CASCADE",
            "bytes": "BYTEA",
            "vector": f"halfvec({self._dimension})",
        }
        for table in (*sql.TABLES, _INDEX, _INDEX_BY_PARTITION):
            run(table.format(**types), ())
        sql.check_meta(run, source=f"schema {self._schema}", encoder=encoder, dimension=self._dimension)

    def _one(self, where: str, parameters: Sequence[Any], *, now_seconds: float) -> StoredEntry | None:
        vector = "v.vector::real[]"
        found = sql.select_entry(self._read, where, parameters, now_seconds=now_seconds, vector=vector)
        if found is None:
            return None
        rounded = np.asarray(found[0][4], dtype=np.float32)
        return self._uses.added_to(sql.as_stored(found, vector=rounded / np.linalg.norm(rounded)))

    def _remember(self, partition: bytes, *, held: int) -> None:
        if held > self._exact_entries and len(self._large) < _MOST_LARGE:
            self._large[partition] = None
        else:
            self._large.pop(partition, None)

    def _dropped(self, removed: sql.Removed) -> int:
        self._held.forget()
        return len(removed)

    def _write_uses(self) -> None:
        with self._uses.taken() as uses:
            if uses:
                self._transaction(lambda run: sql.write_uses(run, uses))


def _written(vector: FloatArray) -> str:
    """Return a vector as pgvector reads it, rounded to 16 bits as it will be."""
    return "[" + ",".join(map(repr, vector.astype(np.float16).tolist())) + "]"


def _cosine(distance: float) -> float:
    return min(1.0, max(-1.0, 1.0 - float(distance)))

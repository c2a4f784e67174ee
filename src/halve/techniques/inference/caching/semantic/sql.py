"""The statements that both databases run, written once: what a `put` is, and what leaves with it.

Parameters are question marks; `PostgresStore` writes them its own way. Every function takes `run`, which executes one
statement inside the caller's transaction and returns its rows. Writers come one at a time (SQLite by its nature,
PostgreSQL by an advisory lock), so totals are exact and limits hold at every commit.

Texts are bytes in UTF-8: PostgreSQL takes no zero byte in a text, and neither database takes a lone surrogate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.store import (
    FloatArray,
    NewEntry,
    Stored,
    StoredEntry,
    to_bytes,
    to_text,
)
from halve.techniques.inference.caching.semantic.uses import Noted

Run = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Executes one statement and returns all its rows."""

Removed = list[tuple[int, bytes]]
"""Number and partition of entries that left."""

SCHEMA_NAME: Final = "halve.semantic-cache/1"

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS totals (singleton INTEGER PRIMARY KEY CHECK (singleton = 1),"
    " entries BIGINT NOT NULL, size_bytes BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS entries (entry {number}, partition_key {bytes} NOT NULL, exact_key {bytes} NOT NULL,"
    " text {bytes} NOT NULL, answer_digest TEXT NOT NULL, created_seconds DOUBLE PRECISION NOT NULL,"
    " expires_seconds DOUBLE PRECISION NOT NULL, last_used_seconds DOUBLE PRECISION NOT NULL, hits BIGINT NOT NULL,"
    " usd_saved_each DOUBLE PRECISION NOT NULL, size_bytes BIGINT NOT NULL, UNIQUE (partition_key, exact_key))",
    "CREATE TABLE IF NOT EXISTS answers (entry {reference}, answer {bytes} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS vectors (entry {reference}, partition_key {bytes} NOT NULL,"
    " expires_seconds DOUBLE PRECISION NOT NULL, vector {vector} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tags (entry BIGINT NOT NULL REFERENCES entries ON DELETE CASCADE, tag {bytes} NOT NULL,"
    " PRIMARY KEY (entry, tag))",
    "CREATE INDEX IF NOT EXISTS tags_by_tag ON tags (tag)",
    "CREATE INDEX IF NOT EXISTS entries_by_end ON entries (expires_seconds)",
)
"""Narrow rows for what is searched through; answers and vectors lie apart, so that a look for victims skips them."""

_AT_ONCE = 500
"""Numbers in one IN (...)."""


@dataclass(frozen=True, kw_only=True)
class Put:
    """What one `put` changed."""

    entry: int
    replaced: Removed
    expired: Removed
    evicted: Removed

    @property
    def removed(self) -> Removed:
        """All that left."""
        return [*self.replaced, *self.expired, *self.evicted]

    @property
    def stored(self) -> Stored:
        """What the caller of a store is told."""
        return Stored(entry=self.entry, expired=len(self.expired), evicted=len(self.evicted))


def check_meta(run: Run, *, source: str, encoder: str, dimension: int) -> None:
    """Write what the store is for into a new one; compare it in one that has entries.

    Raises:
        InvalidParameterError: If its vectors are another encoder's.
    """
    given = {"schema": SCHEMA_NAME, "encoder": encoder, "dimension": str(dimension)}
    for name, value in given.items():
        run("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
    run("INSERT INTO totals (singleton, entries, size_bytes) VALUES (1, 0, 0) ON CONFLICT DO NOTHING", ())
    found = {str(name): str(value) for name, value in run("SELECT name, value FROM meta", ())}
    for name in ("schema", "encoder", "dimension"):
        if found[name] != given[name]:
            hint = "Vectors of two encoders cannot be compared: use another store."
            raise InvalidParameterError(name, rule=f"{found[name]!r}, as in {source}", value=given[name], hint=hint)


def put_many(
    run: Run, entries: Sequence[NewEntry], vectors: Sequence[object], *, limits: Limits, uses: Noted
) -> list[Put]:
    """Write hits, then store entries one after the other.

    Args:
        run: Inside a transaction.
        entries: What is stored.
        vectors: Theirs, as this database takes them.
        limits: What may be held.
        uses: From `Uses.taken`.
    """
    write_uses(run, uses)
    return [put(run, entry, vector=vector, limits=limits) for entry, vector in zip(entries, vectors, strict=True)]


def put(run: Run, entry: NewEntry, *, vector: object, limits: Limits) -> Put:
    """Drop what is over, store the entry in place of its predecessor, and keep the limits.

    Raises:
        InvalidParameterError: If the entry alone is above the limits.
    """
    limits.check_fits(entry.size_bytes)
    now = entry.created_seconds
    expired = remove(run, "expires_seconds <= ?", (now,))
    replaced = remove(run, "partition_key = ? AND exact_key = ?", (entry.partition, entry.key))
    columns = (
        "partition_key, exact_key, text, answer_digest, created_seconds, expires_seconds, last_used_seconds, hits,"
        " usd_saved_each, size_bytes"
    )
    values = (entry.partition, entry.key, to_bytes(entry.text), entry.answer_digest, now, entry.expires_seconds, now, 0)
    rows = run(
        f"INSERT INTO entries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING entry",
        (*values, entry.usd_saved_each, entry.size_bytes),
    )
    number = int(rows[0][0])
    run("INSERT INTO answers (entry, answer) VALUES (?, ?)", (number, to_bytes(entry.answer)))
    run(
        "INSERT INTO vectors (entry, partition_key, expires_seconds, vector) VALUES (?, ?, ?, ?)",
        (number, entry.partition, entry.expires_seconds, vector),
    )
    for tag in sorted(entry.tags):
        run("INSERT INTO tags (entry, tag) VALUES (?, ?)", (number, to_bytes(tag)))
    run("UPDATE totals SET entries = entries + 1, size_bytes = size_bytes + ?", (entry.size_bytes,))
    evicted = _evict(run, limits, spare=number, now_seconds=now)
    return Put(entry=number, replaced=replaced, expired=expired, evicted=evicted)


def write_uses(run: Run, uses: Noted) -> None:
    """Write hits that were noted."""
    for entry, (hits, last) in uses.items():
        run(
            "UPDATE entries SET hits = hits + ?, last_used_seconds ="
            " CASE WHEN last_used_seconds < ? THEN ? ELSE last_used_seconds END WHERE entry = ?",
            (hits, last, last, entry),
        )


def remove(run: Run, where: str, parameters: Sequence[Any]) -> Removed:
    """Remove the entries of which this is true, with all that hangs on them; return them."""
    rows = run(f"DELETE FROM entries WHERE {where} RETURNING entry, partition_key, size_bytes", parameters)
    if rows:
        size = sum(int(row[2]) for row in rows)
        run("UPDATE totals SET entries = entries - ?, size_bytes = size_bytes - ?", (len(rows), size))
    return [(int(row[0]), bytes(row[1])) for row in rows]


def remove_tagged(run: Run, tag: str) -> Removed:
    """Remove the entries with a tag; return them."""
    return remove(run, "entry IN (SELECT entry FROM tags WHERE tag = ?)", (to_bytes(tag),))


def select_entry(run: Run, where: str, parameters: Sequence[Any], *, now_seconds: float, vector: str) -> Any:
    """Return the row of the entry of which this is true, and its tags; None if there is none or it has expired.

    Args:
        run: Need not be inside a transaction.
        where: About `e`, the entry.
        parameters: Of `where`.
        now_seconds: Now.
        vector: The column `v.vector` as this database gives it.
    """
    rows = run(
        f"SELECT e.entry, e.partition_key, e.exact_key, e.text, {vector}, a.answer, e.answer_digest, e.created_seconds,"
        " e.expires_seconds, e.last_used_seconds, e.hits, e.usd_saved_each FROM entries e"
        " JOIN answers a ON a.entry = e.entry JOIN vectors v ON v.entry = e.entry"
        f" WHERE {where} AND e.expires_seconds > ?",
        (*parameters, now_seconds),
    )
    if not rows:
        return None
    tags = run("SELECT tag FROM tags WHERE entry = ?", (rows[0][0],))
    return rows[0], frozenset(to_text(tag) for (tag,) in tags)


def held(run: Run, partition: bytes, *, at_most: int, now_seconds: float) -> int:
    """Return how many entries of a partition have not expired, counted up to `at_most`."""
    some = "SELECT 1 FROM entries WHERE partition_key = ? AND expires_seconds > ? LIMIT ?"
    return int(run(f"SELECT count(*) FROM ({some}) AS counted", (partition, now_seconds, at_most))[0][0])


def as_stored(found: tuple[tuple[Any, ...], frozenset[str]], *, vector: FloatArray) -> StoredEntry:
    """Return what `select_entry` found, with its vector decoded."""
    row, tags = found
    return StoredEntry(
        entry=int(row[0]),
        partition=bytes(row[1]),
        key=bytes(row[2]),
        text=to_text(row[3]),
        vector=vector,
        answer=to_text(row[5]),
        answer_digest=str(row[6]),
        tags=tags,
        created_seconds=float(row[7]),
        expires_seconds=float(row[8]),
        last_used_seconds=float(row[9]),
        hits=int(row[10]),
        usd_saved_each=float(row[11]),
    )


def in_chunks(numbers: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    """Give numbers in groups, each with its question marks, for IN (...)."""
    for start in range(0, len(numbers), _AT_ONCE):
        group = numbers[start : start + _AT_ONCE]
        yield ", ".join("?" * len(group)), group


def _evict(run: Run, limits: Limits, *, spare: int, now_seconds: float) -> Removed:
    entries, size_bytes = (int(value) for value in run("SELECT entries, size_bytes FROM totals", ())[0])
    if not limits.exceeded_by(entries=entries, size_bytes=size_bytes):
        return []
    order = limits.order_sql(now_seconds=now_seconds)
    leaving: list[int] = []
    for most in (entries // 50 + 64, entries):  # all of them are read only if the first are not enough
        query = f"SELECT entry, size_bytes FROM entries WHERE entry <> ? ORDER BY {order} LIMIT ?"
        rows = [(int(entry), int(size)) for entry, size in run(query, (spare, most))]
        leaving = limits.victims(rows, entries=entries, size_bytes=size_bytes)
        if len(leaving) < len(rows):
            break
    return [gone for marks, group in in_chunks(leaving) for gone in remove(run, f"entry IN ({marks})", group)]

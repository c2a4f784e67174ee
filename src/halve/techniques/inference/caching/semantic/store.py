"""What a semantic cache keeps, and what every store of it promises.

Two stores keep it: `SQLiteStore`, a file beside the process, and `PostgresStore`, shared by many gateways. Both pass
one contract suite. Times are wall-clock seconds that the caller passes in, so that a store has no clock of its own.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.neighbour import Neighbour

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

KEY_BYTES = 32
MOST_DIMENSIONS = 4000
"""What pgvector's HNSW takes in 16 bits a number."""

FOREVER = math.inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewEntry:
    """An answer to be stored.

    Args:
        partition: From `partition_key`: 32 bytes.
        key: From `exact_key` of the text: 32 bytes.
        text: The question.
        vector: Of the question, (d,), any length but 0; stored at length 1.
        answer: JSON text.
        answer_digest: Equal digests are equal answers; the SHA-256 of `answer` if empty.
        tags: What the answer depends on; `EntryStore.invalidate` removes by them.
        created_seconds: Now.
        expires_seconds: From then on the entry is not found, > created_seconds.
        usd_saved_each: What one hit saves, >= 0.

    Raises:
        InvalidParameterError: If a value breaks its rule.
    """

    partition: bytes
    key: bytes
    text: str
    vector: FloatArray
    answer: str
    answer_digest: str = ""
    tags: frozenset[str] = frozenset()
    created_seconds: float
    expires_seconds: float = FOREVER
    usd_saved_each: float = 0.0
    size_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        for name in ("partition", "key"):
            if len(getattr(self, name)) != KEY_BYTES:
                raise InvalidParameterError(name, rule=f"{KEY_BYTES} bytes", value=getattr(self, name))
        if not math.isfinite(self.created_seconds):
            raise InvalidParameterError("created_seconds", rule="finite", value=self.created_seconds)
        if not self.expires_seconds > self.created_seconds:
            rule = f"later than created_seconds, {self.created_seconds}"
            raise InvalidParameterError("expires_seconds", rule=rule, value=self.expires_seconds)
        if not (math.isfinite(self.usd_saved_each) and self.usd_saved_each >= 0):
            raise InvalidParameterError("usd_saved_each", rule="at least 0 and finite", value=self.usd_saved_each)
        _check_json(self.answer)
        object.__setattr__(self, "vector", unit(self.vector))
        if not self.answer_digest:
            object.__setattr__(self, "answer_digest", answer_digest(self.answer))
        texts = len(to_bytes(self.text)) + len(to_bytes(self.answer)) + sum(len(to_bytes(tag)) for tag in self.tags)
        object.__setattr__(self, "size_bytes", texts + 2 * len(self.vector))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredEntry:
    """An entry as a store holds it.

    Args:
        entry: Its number in the store; never given twice.
        partition: 32 bytes.
        key: 32 bytes.
        text: The question.
        vector: Of length 1, float32 (d,), rounded to 16 bits.
        answer: JSON text.
        answer_digest: Equal digests are equal answers.
        tags: What the answer depends on.
        created_seconds: When it was put.
        expires_seconds: When it ends; `FOREVER` if never.
        last_used_seconds: The last hit, or when it was put.
        hits: How often it was served.
        usd_saved_each: What one hit saves.
    """

    entry: int
    partition: bytes
    key: bytes
    text: str
    vector: FloatArray
    answer: str
    answer_digest: str
    tags: frozenset[str]
    created_seconds: float
    expires_seconds: float
    last_used_seconds: float
    hits: int
    usd_saved_each: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What one `put` did.

    Args:
        entry: Number of the new entry.
        expired: Entries removed because their time was over.
        evicted: Entries removed to keep the limits.
    """

    entry: int
    expired: int
    evicted: int


class EntryStore(Protocol):
    """Answers by partition, exact key and vector. Safe to use from many threads.

    Every method raises `StorageError` if the database cannot be read or written.
    """

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    def put(self, entry: NewEntry) -> Stored:
        """Store an entry in place of an earlier one with its partition and key; remove what is over or too much.

        When this returns, the entry is on disk: it survives kill -9 and a loss of power.

        Raises:
            InvalidParameterError: If the vector has another dimension, or the entry alone is above the limits.
        """
        ...

    def put_many(self, entries: Sequence[NewEntry]) -> list[Stored]:
        """Store entries one after the other in one transaction: all of them or none, with one wait for the disk.

        Raises:
            InvalidParameterError: As `put`.
        """
        ...

    def get_exact(self, partition: bytes, key: bytes, *, now_seconds: float) -> StoredEntry | None:
        """Return the entry with this partition and key, unless it has expired."""
        ...

    def get(self, entry: int, *, now_seconds: float) -> StoredEntry | None:
        """Return the entry with this number, unless it has expired or was removed."""
        ...

    def nearest(self, partition: bytes, vector: FloatArray, *, count: int, now_seconds: float) -> list[Neighbour]:
        """Return the entries of one partition nearest to a vector, by falling cosine; none that has expired.

        Exact in small partitions, approximate in large ones.

        Args:
            partition: 32 bytes.
            vector: (d,), any length but 0.
            count: At most so many, >= 1.
            now_seconds: Now.

        Raises:
            InvalidParameterError: If the vector has another dimension, no length, or is not finite.
        """
        ...

    def held(self, partition: bytes, *, at_most: int, now_seconds: float) -> int:
        """Return how many entries one partition holds, expired ones left out.

        May be some seconds old, and is then too low after a `put` here, too high after a removal elsewhere.

        Args:
            partition: 32 bytes.
            at_most: Counted up to here, >= 1.
            now_seconds: Now.
        """
        ...

    def vectors(self, entries: Sequence[int]) -> FloatArray:
        """Return the vectors of entries, float32 (n, d), in their order; zeros for one that is gone."""
        ...

    def used(self, entry: int, *, now_seconds: float) -> None:
        """Note a hit. Notes are written with the next `put`, and when the store is closed; a kill loses them."""
        ...

    def invalidate(self, tag: str) -> int:
        """Remove every entry with this tag, whatever its partition; return how many. Durable when it returns."""
        ...

    def expire(self, *, now_seconds: float) -> int:
        """Remove every entry whose time is over; return how many."""
        ...

    def __len__(self) -> int:
        """Entries held, expired ones too until a `put` or `expire` removes them."""
        ...

    def close(self) -> None:
        """Write what is noted and let go of files and connections."""
        ...


def unit(vector: NDArray[Any]) -> FloatArray:
    """Return a vector at length 1, float32 (d,).

    Raises:
        InvalidParameterError: If it is no vector, not finite, or has no length.
    """
    flat = np.asarray(vector, dtype=np.float64)
    if flat.ndim != 1 or not 1 <= len(flat) <= MOST_DIMENSIONS:
        raise InvalidParameterError("vector", rule=f"of shape (d,), d from 1 to {MOST_DIMENSIONS}", value=flat.shape)
    length = float(np.sqrt(flat @ flat))
    if not (math.isfinite(length) and length > 0):
        raise InvalidParameterError("vector", rule="finite and longer than 0", value=f"length {length}")
    return (flat / length).astype(np.float32)


def checked_unit(vector: NDArray[Any], *, dimension: int) -> FloatArray:
    """Return a vector at length 1 after a look at its dimension.

    Raises:
        InvalidParameterError: If it has another dimension, is not finite, or has no length.
    """
    if np.shape(vector) != (dimension,):
        rule = f"of shape ({dimension},), as the store's encoder makes them"
        raise InvalidParameterError("vector", rule=rule, value=np.shape(vector))
    return unit(vector)


def answer_digest(answer: str) -> str:
    """Return the SHA-256 of an answer's text in hexadecimal."""
    return hashlib.sha256(to_bytes(answer)).hexdigest()


def to_bytes(text: str) -> bytes:
    """Return a text as a database may hold any text: with zero bytes and lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Undo `to_bytes`."""
    return bytes(data).decode("utf-8", "surrogatepass")


def _check_json(answer: str) -> None:
    try:
        json.loads(answer)
    except ValueError:
        raise InvalidParameterError("answer", rule="JSON text", value=answer[:80]) from None

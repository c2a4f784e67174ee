"""A semantic cache: an identical question first, then the nearest ones and a decision about them.

It knows neither how vectors are made, nor where entries lie, nor how it is decided: all three are passed in. A look-up
is for one partition and cannot see another; see `partition`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, final

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.keys import exact_key
from halve.techniques.inference.caching.semantic.neighbour import Decision, Neighbour
from halve.techniques.inference.caching.semantic.store import FOREVER, EntryStore, FloatArray, NewEntry, Stored

Encode = Callable[[Sequence[str]], FloatArray]
"""Takes n texts, returns their vectors, float32 (n, d), of any length but 0."""

Decide = Callable[[str, Sequence[Neighbour]], Decision]
"""Takes a question and its neighbours by falling cosine, at least one; says whether a stored answer is served."""

Found = Literal["exact", "semantic", "miss"]


class DecideOnVectors(Protocol):
    """A decision that looks at the vectors too."""

    @property
    def most_held(self) -> int:
        """From how many entries of the partition on, more make no difference to it; 0: it does not ask."""
        ...

    def vectors_needed(self, neighbours: Sequence[Neighbour], *, held: int) -> int:
        """Return of how many of the first neighbours it wants the vectors, >= 0: the others are not fetched."""
        ...

    def decide(
        self, text: str, neighbours: Sequence[Neighbour], *, vector: FloatArray, vectors: FloatArray, held: int
    ) -> Decision:
        """Decide.

        Args:
            text: The question.
            neighbours: By falling cosine, at least one.
            vector: Of the question, (d,), as it was encoded.
            vectors: Of the first `vectors_needed` neighbours, (n, d), of length 1.
            held: Entries of the partition, counted up to `most_held`.
        """
        ...


IDENTICAL: Final = "identical text"
NOTHING_STORED: Final = "nothing stored"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lookup:
    """What a look-up found.

    Args:
        found: How.
        answer: The stored answer, JSON text; None for a miss.
        decision: Why; `probability` is 1 for an identical text.
        neighbours: What was decided about; empty if the text was identical.
        vector: Of the question, (d,), for the `put` that follows a miss; None if it was not encoded.
    """

    found: Found
    answer: str | None
    decision: Decision
    neighbours: Sequence[Neighbour] = ()
    vector: FloatArray | None = field(default=None, repr=False)

    @property
    def hit(self) -> bool:
        """Whether there is an answer."""
        return self.found != "miss"


@dataclass(frozen=True, kw_only=True)
class SemanticCounts:
    """What a cache has done so far.

    Args:
        exact_hits: Identical texts.
        semantic_hits: Neighbours whose answer was served.
        misses: All else.
        vetoed: Misses that had neighbours: the decision was against them.
        puts: Answers stored.
        evictions: Entries removed to keep the limits.
        expiries: Entries removed because their time was over.
        encoded_texts: Texts of which a vector was made.
        encode_seconds: Time that took.
        usd_saved: Of all hits, as their entries say.
    """

    exact_hits: int = 0
    semantic_hits: int = 0
    misses: int = 0
    vetoed: int = 0
    puts: int = 0
    evictions: int = 0
    expiries: int = 0
    encoded_texts: int = 0
    encode_seconds: float = 0.0
    usd_saved: float = 0.0


@final
class SemanticCache:
    """Answers by meaning. Safe to use from many threads if `encode` and `decide` are.

    Args:
        store: Where entries lie.
        encode: Makes vectors.
        decide: Says whether a neighbour's answer is served.
        neighbours: Entries that are looked at, >= 1.
        ttl_seconds: An entry is good for so long, > 0; None is for ever.
        on_vectors: Decides instead of `decide`, if given, and sees the vectors too.
        clock: Measures `encode_seconds`.

    Raises:
        InvalidParameterError: If a value is outside its range, or not exactly one decision is given.
    """

    def __init__(
        self,
        *,
        store: EntryStore,
        encode: Encode,
        decide: Decide | None = None,
        on_vectors: DecideOnVectors | None = None,
        neighbours: int = 8,
        ttl_seconds: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if neighbours < 1:
            raise InvalidParameterError("neighbours", rule="at least 1", value=neighbours)
        if ttl_seconds is not None and not ttl_seconds > 0:
            raise InvalidParameterError("ttl_seconds", rule="above 0, or None for ever", value=ttl_seconds)
        if (decide is None) == (on_vectors is None):
            given = "neither" if decide is None else "both"
            raise InvalidParameterError("decide and on_vectors", rule="one of the two", value=given)
        self.store = store
        self._encode, self._decide, self._on_vectors, self._clock = encode, decide, on_vectors, clock
        self._neighbours, self._ttl = neighbours, FOREVER if ttl_seconds is None else ttl_seconds
        self._counts, self._counting = SemanticCounts(), threading.Lock()

    def __len__(self) -> int:
        return len(self.store)

    @property
    def counts(self) -> SemanticCounts:
        """What was done since the start, by this process."""
        return self._counts

    def lookup(self, partition: bytes, text: str, *, now_seconds: float, vector: FloatArray | None = None) -> Lookup:
        """Return the stored answer to a question, or a miss.

        Args:
            partition: From `partition_key`.
            text: The question.
            now_seconds: Wall-clock time.
            vector: Of the question, if the caller has it: it is not encoded then.

        Raises:
            InvalidParameterError: If the encoder's vectors have another dimension than the store's.
            StorageError: If the store fails.
        """
        entry = self.store.get_exact(partition, exact_key(text), now_seconds=now_seconds)
        if entry is not None:
            self._hit(entry.entry, entry.usd_saved_each, now_seconds=now_seconds, exact_hits=1)
            decision = Decision(hit=True, entry=entry.entry, probability=1.0, reason=IDENTICAL)
            return Lookup(found="exact", answer=entry.answer, decision=decision)
        if vector is None:
            vector = self._vector(text)
        neighbours = self.store.nearest(partition, vector, count=self._neighbours, now_seconds=now_seconds)
        decision = self._decision(partition, text, neighbours, vector, now_seconds)
        stored = self.store.get(decision.entry, now_seconds=now_seconds) if decision.entry is not None else None
        if not decision.hit or stored is None:
            self._count(misses=1, vetoed=bool(neighbours))
            miss = replace(decision, hit=False, entry=None)
            return Lookup(found="miss", answer=None, decision=miss, neighbours=neighbours, vector=vector)
        self._hit(stored.entry, stored.usd_saved_each, now_seconds=now_seconds, semantic_hits=1)
        return Lookup(found="semantic", answer=stored.answer, decision=decision, neighbours=neighbours, vector=vector)

    def put(  # noqa: PLR0913 - keywords, each a fact about the answer
        self,
        partition: bytes,
        text: str,
        answer: str,
        *,
        now_seconds: float,
        vector: FloatArray | None = None,
        answer_digest: str = "",
        tags: Iterable[str] = (),
        ttl_seconds: float | None = None,
        usd_saved_each: float = 0.0,
    ) -> Stored:
        """Store an answer; it is on disk when this returns.

        Args:
            partition: From `partition_key`.
            text: The question.
            answer: JSON text. Whether it may be stored is the caller's to know; see `cacheable`.
            now_seconds: Wall-clock time.
            vector: From the look-up that missed: it is not encoded again then.
            answer_digest: Equal digests are equal answers; the SHA-256 of `answer` if empty.
            tags: What the answer depends on, for `invalidate`.
            ttl_seconds: Instead of the cache's, > 0.
            usd_saved_each: What one hit saves, >= 0.

        Raises:
            InvalidParameterError: If a value breaks its rule, or the entry alone is above the store's limits.
            StorageError: If the store fails.
        """
        if ttl_seconds is not None and not ttl_seconds > 0:
            raise InvalidParameterError("ttl_seconds", rule="above 0, or None for the cache's", value=ttl_seconds)
        entry = NewEntry(
            partition=partition,
            key=exact_key(text),
            text=text,
            vector=self._vector(text) if vector is None else vector,
            answer=answer,
            answer_digest=answer_digest,
            tags=frozenset(tags),
            created_seconds=now_seconds,
            expires_seconds=now_seconds + (self._ttl if ttl_seconds is None else ttl_seconds),
            usd_saved_each=usd_saved_each,
        )
        stored = self.store.put(entry)
        self._count(puts=1, evictions=stored.evicted, expiries=stored.expired)
        return stored

    def invalidate(self, tag: str) -> int:
        """Remove every entry with this tag, in every partition; return how many."""
        return self.store.invalidate(tag)

    def _vector(self, text: str) -> FloatArray:
        begun = self._clock()
        vectors = self._encode([text])
        self._count(encoded_texts=1, encode_seconds=self._clock() - begun)
        if np.shape(vectors) != (1, self.store.dimension):
            rule = f"of shape (1, {self.store.dimension}), as the store's are"
            raise InvalidParameterError("vectors of the encoder", rule=rule, value=np.shape(vectors))
        first: FloatArray = vectors[0]
        return first

    def _decision(
        self, partition: bytes, text: str, neighbours: Sequence[Neighbour], vector: FloatArray, now_seconds: float
    ) -> Decision:
        if not neighbours:
            return Decision(hit=False, entry=None, probability=0.0, reason=NOTHING_STORED)
        if self._on_vectors is not None:
            most = self._on_vectors.most_held
            held = self.store.held(partition, at_most=most, now_seconds=now_seconds) if most else 0
            needed = self._on_vectors.vectors_needed(neighbours, held=held)
            vectors = self.store.vectors([neighbour.entry for neighbour in neighbours[:needed]])
            decision = self._on_vectors.decide(text, neighbours, vector=vector, vectors=vectors, held=held)
        else:
            assert self._decide is not None
            decision = self._decide(text, neighbours)
        if decision.hit and decision.entry not in {neighbour.entry for neighbour in neighbours}:
            raise InvalidParameterError("entry of a decision", rule="one of the neighbours", value=decision.entry)
        return decision

    def _hit(
        self, entry: int, usd_saved: float, *, now_seconds: float, exact_hits: int = 0, semantic_hits: int = 0
    ) -> None:
        self.store.used(entry, now_seconds=now_seconds)
        self._count(exact_hits=exact_hits, semantic_hits=semantic_hits, usd_saved=usd_saved)

    def _count(self, **more: float) -> None:
        with self._counting:
            self._counts = replace(
                self._counts, **{name: getattr(self._counts, name) + value for name, value in more.items()}
            )

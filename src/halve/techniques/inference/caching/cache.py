"""A bounded store of answers under exact keys. Single-threaded, in memory; it has no clock of its own."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from halve.errors import InvalidParameterError

V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What a cache has done so far. An expired entry counts as a miss and as an expiry."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expiries: int = 0


@final
class ExactCache(Generic[V]):
    """Keeps the latest `capacity_entries` answers; the least recently used leaves first.

    `get` and `put` are O(1). An entry is used when it is stored or found; being found does not make it younger.

    Args:
        capacity_entries: Entries kept at most, >= 1.
        ttl_seconds: An entry is good while it is younger than this, > 0; None is forever.

    Raises:
        InvalidParameterError: If a value is outside its range.
    """

    def __init__(self, *, capacity_entries: int, ttl_seconds: float | None = None) -> None:
        if capacity_entries < 1:
            raise InvalidParameterError("capacity_entries", rule="at least 1", value=capacity_entries)
        if ttl_seconds is not None and not ttl_seconds > 0:
            raise InvalidParameterError("ttl_seconds", rule="above 0, or None for ever", value=ttl_seconds)
        self._capacity = capacity_entries
        self._ttl = float("inf") if ttl_seconds is None else ttl_seconds
        self._entries: OrderedDict[bytes, tuple[V, float]] = OrderedDict()
        self._hits = self._misses = self._evictions = self._expiries = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def counts(self) -> CacheCounts:
        """Hits, misses, evictions and expiries since the start."""
        return CacheCounts(hits=self._hits, misses=self._misses, evictions=self._evictions, expiries=self._expiries)

    def get(self, key: bytes, *, now_seconds: float) -> V | None:
        """Return the answer stored under this key, or None; an expired entry is dropped."""
        entry = self._entries.get(key)
        if entry is not None and now_seconds - entry[1] < self._ttl:
            self._entries.move_to_end(key)
            self._hits += 1
            return entry[0]
        if entry is not None:
            del self._entries[key]
            self._expiries += 1
        self._misses += 1
        return None

    def put(self, key: bytes, answer: V, *, now_seconds: float) -> None:
        """Store an answer, replacing an older one under the same key and its age.

        Args:
            key: From `exact_key`.
            answer: Anything but None, which `get` could not tell from a miss. It is kept, not copied.
            now_seconds: On the same clock as for `get`.

        Raises:
            InvalidParameterError: If the answer is None.
        """
        if answer is None:
            raise InvalidParameterError("answer", rule="anything but None", value=None)
        self._entries[key] = (answer, now_seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
            self._evictions += 1

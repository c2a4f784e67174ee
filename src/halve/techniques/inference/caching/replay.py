"""Which requests of a trace a cache would have answered."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.cache import ExactCache


def hit_mask(
    content: NDArray[np.int64],
    arrival_seconds: NDArray[np.float64],
    *,
    capacity_entries: int,
    ttl_seconds: float | None = None,
    answer_seconds: float = 0.0,
) -> NDArray[np.bool_]:
    """Return whether each arrival finds its answer in an `ExactCache` that starts empty.

    The trace is put through the same class that serves. Where nothing can expire or be evicted, a sort gives the
    same mask: an arrival hits if the answer to the first of its kind is there.

    Args:
        content: int64 (n,): equal numbers are identical requests.
        arrival_seconds: float64 (n,), sorted.
        capacity_entries: As in `ExactCache`.
        ttl_seconds: As in `ExactCache`.
        answer_seconds: An answer is stored so long after a missed arrival, >= 0; until then, and before other
            arrivals of the same instant, identical requests miss as well.

    Returns:
        bool (n,).

    Raises:
        InvalidParameterError: If lengths differ, times are not sorted, or a value is outside its range.
    """
    cache: ExactCache[bool] = ExactCache(capacity_entries=capacity_entries, ttl_seconds=ttl_seconds)
    if len(content) != len(arrival_seconds):
        lengths = (len(content), len(arrival_seconds))
        raise InvalidParameterError("content and arrival_seconds", rule="equally long", value=lengths)
    if not np.all(np.diff(arrival_seconds) >= 0):
        raise InvalidParameterError("arrival_seconds", rule="sorted", value="an array that is not")
    if not answer_seconds >= 0:
        raise InvalidParameterError("answer_seconds", rule="at least 0", value=answer_seconds)
    _, first, kind = np.unique(content, return_index=True, return_inverse=True)
    if ttl_seconds is None and len(first) <= capacity_entries:
        ready = arrival_seconds[first] + answer_seconds
        hits: NDArray[np.bool_] = (arrival_seconds >= ready[kind]) & (np.arange(len(content)) != first[kind])
        return hits
    return _replay(cache, kind, arrival_seconds, answer_seconds)


def _replay(
    cache: ExactCache[bool], kind: NDArray[np.int64], arrival_seconds: NDArray[np.float64], answer_seconds: float
) -> NDArray[np.bool_]:
    """Put every arrival through the cache, storing the answer of each miss when it is ready."""
    keys = [number.to_bytes(8, "big") for number in range(len(np.unique(kind)))]
    hits = np.zeros(len(kind), dtype=np.bool_)
    answered: deque[tuple[float, bytes]] = deque()
    for index, (number, now) in enumerate(zip(kind.tolist(), arrival_seconds.tolist(), strict=True)):
        while answered and answered[0][0] <= now:
            ready, key = answered.popleft()
            cache.put(key, True, now_seconds=ready)
        hits[index] = cache.get(keys[number], now_seconds=now) is not None
        if not hits[index]:
            answered.append((now + answer_seconds, keys[number]))
    return hits

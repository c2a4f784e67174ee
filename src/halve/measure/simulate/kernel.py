"""The one compiled loop of the simulator: a queue, its replicas, and the requests that go on.

Compiled at import and kept on disk, so that only the first import on a machine waits for the compiler.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

_given = types.Array(types.float64, 1, "C", readonly=True)
_exits = types.Array(types.int64, 1, "C", readonly=True)
_floats, _numbers = types.float64[::1], types.int32[::1]
_SERVE = types.Tuple((types.int64, types.float64))(
    *(_given, _numbers, _exits, types.int64),
    *(_given, types.float64, types.int64, _given, _numbers),
    *(_floats, _floats, _floats, _numbers),
)


def _compiled(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    def compile_now(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, nogil=True, cache=True)(function)
        except RuntimeError:  # no folder for the cache can be written, as in a read-only container
            return njit(signature, nogil=True)(function)

    return compile_now


@njit(nogil=True)
def _take_turn(free_at, first, stop, front, replicas, finish, head, tail):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Give a new batch to the replica at the front of the ring, and move it to its place by time."""
    mask = len(free_at) - 1
    place = front + replicas
    while place > front + 1 and free_at[(place - 1) & mask] > finish:
        free_at[place & mask] = free_at[(place - 1) & mask]
        first[place & mask], stop[place & mask] = first[(place - 1) & mask], stop[(place - 1) & mask]
        place -= 1
    free_at[place & mask], first[place & mask], stop[place & mask] = finish, head, tail


@njit(nogil=True)
def _forward(batch, finish, ids, exits, station, next_arrivals, next_ids, sent):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Send on those of a finished batch that do not leave here; return how many were sent so far."""
    for position in range(batch[0], batch[1]):
        if exits[ids[position]] > station:
            next_arrivals[sent], next_ids[sent] = finish, ids[position]
            sent += 1
    return sent


@_compiled(_SERVE)
def serve(  # type: ignore[no-untyped-def]  # pragma: no cover
    arrivals, ids, exits, station, seconds, max_wait, replicas, ratios, draws, waits, left_at, next_arrivals, next_ids
):
    """Run one station over its arrivals; return the number of batches and the busy seconds.

    Replicas stand in a ring, sorted by the time they are free. A batch always goes to the one in front, which
    then falls back behind everyone who is free before it: at once if batches finish in the order they start, past
    all replicas at worst. Batches leave the front in order of time, and are sent on then: the next station's
    arrivals are sorted without a sort. Batches start in order, so `draws` are used in order.

    Args:
        arrivals: (m,) sorted.
        ids: (m,) number of each request, an index into `exits` and `left_at`.
        exits: (n,) last station of each request.
        station: Number of this station.
        seconds: (max_batch_size,) of a batch of 1, 2, ...
        max_wait: Seconds, finite.
        replicas: At least 1.
        ratios: (k,) factors of a batch's seconds.
        draws: (batches or more,) index into `ratios` for each batch; empty for no noise.
        waits: (m,) out: arrival to start.
        left_at: (n,) out: when each request's batch was finished here.
        next_arrivals, next_ids: (requests that go on,) out: sorted by time, ties by the order of start.
    """
    n, largest = len(arrivals), len(seconds)
    goes_on, is_noisy = len(next_ids) > 0, len(draws) > 0
    size = 2
    while size <= replicas:
        size *= 2
    free_at = np.full(size, -np.inf)
    first, stop = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    front, mask = 0, size - 1
    head, n_batches, sent, busy = 0, 0, 0, 0.0
    while head < n:
        start = arrivals[head] + max_wait
        if head + largest <= n:
            start = min(start, arrivals[head + largest - 1])
        start = max(start, free_at[front & mask])
        tail, limit = head + 1, min(head + largest, n)
        while tail < limit and arrivals[tail] <= start:
            tail += 1
        duration = seconds[tail - head - 1]
        if is_noisy:
            duration *= ratios[draws[n_batches]]
        finish = start + duration
        for position in range(head, tail):
            waits[position] = start - arrivals[position]
            left_at[ids[position]] = finish
        if goes_on:
            batch = first[front & mask], stop[front & mask]
            sent = _forward(batch, free_at[front & mask], ids, exits, station, next_arrivals, next_ids, sent)
        _take_turn(free_at, first, stop, front, replicas, finish, head, tail)
        front += 1
        busy += duration
        n_batches += 1
        head = tail
    for place in range(front, front + replicas):
        if goes_on:
            batch = first[place & mask], stop[place & mask]
            sent = _forward(batch, free_at[place & mask], ids, exits, station, next_arrivals, next_ids, sent)
    return n_batches, busy

"""One traffic into another: thinner, denser, faster, with stated repeats, over examples. Each adds to `source`."""

from dataclasses import replace

import numpy as np

from halve.core import IntArray, Traffic
from halve.errors import InvalidParameterError, WorkloadError
from halve.workload.streams import random_stream


def thin(traffic: Traffic, share: float, *, seed: int) -> Traffic:
    """Return the traffic with each arrival kept with probability `share`, independently; the duration stays.

    With one seed, a smaller share keeps a subset of what a larger one keeps.

    Raises:
        InvalidParameterError: If the share is not in (0, 1].
        WorkloadError: If no arrival is left.
    """
    if not 0 < share <= 1:
        raise InvalidParameterError("traffic.thin", rule="in (0, 1]", value=share)
    if share == 1:
        return traffic
    kept = random_stream(seed, purpose="thin").random(traffic.n_requests) < share
    if not kept.any():
        rule = "large enough to keep 1 arrival"
        raise WorkloadError(f"traffic.thin must be {rule} of {traffic.n_requests}. Got {share}.")
    return replace(
        traffic,
        arrival_seconds=traffic.arrival_seconds[kept],
        content=traffic.content[kept],
        example=traffic.example[kept],
        source=f"{traffic.source}, thinned to {share:g} at random",
    )


def multiply(traffic: Traffic, times: int, *, seed: int) -> Traffic:
    """Return the traffic with each arrival made into `times`: itself, and copies uniform over its gap to the next.

    The gap of the last arrival ends with the duration; if it arrives just then, it gets the mean gap, and the duration
    grows by that. Copies are new requests: each has content of its own, so none makes a repeat that was not there.
    Each stands on the example of its original.

    Raises:
        InvalidParameterError: If `times` is less than 1.
    """
    if times < 1:
        raise InvalidParameterError("traffic.multiply", rule="at least 1", value=times)
    if times == 1:
        return traffic
    arrivals, n = traffic.arrival_seconds, traffic.n_requests
    end = traffic.duration_seconds
    if end == arrivals[-1]:
        end += traffic.duration_seconds / n
    gaps = np.diff(arrivals, append=end)
    shifts = random_stream(seed, purpose="multiply").random((times - 1, n)) * gaps
    copies = np.minimum(arrivals + shifts, np.append(arrivals[1:], end))  # rounding must not pass the next arrival
    fresh = np.arange((times - 1) * n, dtype=np.int64) + traffic.content.max() + 1
    all_arrivals = np.concatenate([arrivals, copies.ravel()])
    order = np.argsort(all_arrivals, kind="stable")
    return replace(
        traffic,
        arrival_seconds=all_arrivals[order],
        content=np.concatenate([traffic.content, fresh])[order],
        example=np.tile(traffic.example, times)[order],
        duration_seconds=float(end),
        source=f"{traffic.source}, each arrival made into {times} (copies repeat nothing)",
    )


def speed_up(traffic: Traffic, factor: float) -> Traffic:
    """Return the traffic with time running `factor` times faster (> 0; below 1 is slower).

    Raises:
        InvalidParameterError: If the factor is not positive and finite, or leaves no time at all.
    """
    if not 0 < factor < float("inf"):
        raise InvalidParameterError("traffic.speed_up", rule="positive and finite", value=factor)
    if factor == 1:
        return traffic
    return replace(
        traffic,
        arrival_seconds=traffic.arrival_seconds / factor,
        duration_seconds=traffic.duration_seconds / factor,
        source=f"{traffic.source}, {factor:g} times as fast",
    )


def declare_popularity(traffic: Traffic, *, exponent: float, seed: int, n_contents: int | None = None) -> Traffic:
    """Return the traffic with repeats by a Zipf law: content r = 1..n is asked with probability r**-exponent / sum.

    Draws are independent. The law is the user's statement, not an observation, and `repeats` says so.

    Args:
        traffic: Without repeats of its own.
        exponent: >= 0 and finite; 0 makes all contents equally popular, 1 is the classic law.
        seed: Of the draw.
        n_contents: Different contents that could be asked, >= 1; as many as there are arrivals if left out.

    Raises:
        InvalidParameterError: If a value is out of range.
        WorkloadError: If the traffic already says what repeats.
    """
    if not 0 <= exponent < float("inf"):
        raise InvalidParameterError("traffic.popularity_exponent", rule="finite and at least 0", value=exponent)
    n_contents = traffic.n_requests if n_contents is None else n_contents
    if n_contents < 1:
        raise InvalidParameterError("n_contents", rule="at least 1", value=n_contents)
    if traffic.repeats != "none":
        rule = "left out for a traffic that already says what repeats"
        raise WorkloadError(f"traffic.popularity_exponent must be {rule} ({traffic.repeats}). Got {exponent}.")
    weights = np.arange(1, n_contents + 1, dtype=np.float64) ** -exponent
    upper = np.cumsum(weights)
    draws = random_stream(seed, purpose="declare_popularity").random(traffic.n_requests) * upper[-1]
    content = np.minimum(np.searchsorted(upper, draws, side="right"), n_contents - 1).astype(np.int64)
    return replace(
        traffic,
        content=content,
        example=content,
        repeats="declared",
        source=f"{traffic.source}, repeats by a Zipf law of exponent {exponent:g} over {n_contents} contents",
    )


def assign_examples(traffic: Traffic, *, seed: int) -> Traffic:
    """Return the traffic with an example for each content: a random permutation of 0 .. different contents - 1.

    `Traffic.example` is taken modulo the size of a split. Of a permutation of m numbers, every remainder occurs
    floor(m / size) or ceil(m / size) times: so whatever the size, examples come in random order and equally often.
    Equal content stands on one example. Contents stay what they are: two arrivals on one example are no repeat.
    """
    order = _order_of_appearance(traffic.content)
    permutation = random_stream(seed, purpose="assign_examples").permutation(int(order.max()) + 1)
    return replace(traffic, example=permutation[order].astype(np.int64))


def _order_of_appearance(content: IntArray) -> IntArray:
    """Number contents 0, 1, 2, ... as they first appear; int64 (n,)."""
    _, first, inverse = np.unique(content, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching import ExactCache, hit_mask


@st.composite
def traces(draw):
    steps = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=60))
    content = np.array([kind for kind, _ in steps], dtype=np.int64) * 1_000_003 - 5
    return content, np.cumsum([0.0, *(gap for _, gap in steps)])[1:]


def served(content, arrivals, *, capacity, ttl, delay):
    """What the gateway would see: a plain loop with a list of answers under way."""
    cache = ExactCache(capacity_entries=capacity, ttl_seconds=ttl)
    under_way, hits = [], []
    for kind, now in zip(content, arrivals, strict=True):
        for ready, key in [entry for entry in under_way if entry[0] <= now]:
            cache.put(key, True, now_seconds=ready)
        under_way = [entry for entry in under_way if entry[0] > now]
        key = str(kind).encode()
        hits.append(cache.get(key, now_seconds=now) is not None)
        if not hits[-1]:
            under_way.append((now + delay, key))
    return hits


@given(traces(), st.integers(1, 9), st.none() | st.integers(1, 12), st.sampled_from([0.0, 1.5, 3.0]))
def test_replay_equals_serving(trace, capacity, ttl, delay):
    content, arrivals = trace
    hits = hit_mask(content, arrivals, capacity_entries=capacity, ttl_seconds=ttl, answer_seconds=delay)
    assert hits.tolist() == served(content, arrivals, capacity=capacity, ttl=ttl, delay=delay)


@given(traces(), st.integers(1, 9))
def test_a_first_occurrence_never_hits_and_a_larger_cache_never_hits_less(trace, capacity):
    content, arrivals = trace
    small, large = (hit_mask(content, arrivals, capacity_entries=size) for size in (capacity, capacity + 1))
    first = np.unique(content, return_index=True)[1]
    assert not np.any(large[first])
    assert not np.any(small & ~large)  # least recently used is a stack algorithm (Mattson et al. 1970)


def test_requests_of_one_instant_hit_once_the_first_is_stored():
    content, arrivals = np.array([4, 4, 4]), np.zeros(3)
    assert hit_mask(content, arrivals, capacity_entries=1).tolist() == [False, True, True]
    assert hit_mask(content, arrivals, capacity_entries=1, answer_seconds=0.1).tolist() == [False, False, False]


def test_traffic_without_repeats_never_hits():
    assert not np.any(hit_mask(np.arange(1_000), np.arange(1_000.0), capacity_entries=10, ttl_seconds=5))


@pytest.mark.parametrize(
    ("content", "arrivals", "more", "match"),
    [
        ([1], [0.0, 1.0], {}, r"equally long. Got \(1, 2\)"),
        ([1, 1], [1.0, 0.0], {}, "arrival_seconds must be sorted"),
        ([1, 1], [1.0, np.nan], {}, "arrival_seconds must be sorted"),
        ([1], [0.0], {"answer_seconds": -1.0}, "answer_seconds must be at least 0. Got -1.0"),
        ([1], [0.0], {"capacity_entries": 0}, "capacity_entries must be at least 1. Got 0"),
    ],
)
def test_bad_values_are_named(content, arrivals, more, match):
    with pytest.raises(InvalidParameterError, match=match):
        hit_mask(np.array(content), np.array(arrivals), **({"capacity_entries": 5} | more))

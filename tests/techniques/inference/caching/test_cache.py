import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching import CacheCounts, ExactCache

keys = st.integers(0, 5).map(lambda number: bytes([number]))


class CacheAgainstModel(RuleBasedStateMachine):
    """The cache beside a plain list of (key, answer, stored at), least recently used first."""

    @initialize(capacity=st.integers(1, 4), ttl=st.none() | st.integers(1, 6))
    def start(self, capacity, ttl):
        self.cache = ExactCache(capacity_entries=capacity, ttl_seconds=ttl)
        self.capacity, self.ttl, self.now = capacity, ttl, 0
        self.entries = []
        self.hits = self.misses = self.evictions = self.expiries = 0

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds):
        self.now += seconds

    @rule(key=keys)
    def get(self, key):
        found = next((entry for entry in self.entries if entry[0] == key), None)
        expected = None
        if found is not None:
            self.entries.remove(found)
            if self.ttl is None or self.now - found[2] < self.ttl:
                self.entries.append(found)
                expected = found[1]
            else:
                self.expiries += 1
        self.hits += expected is not None
        self.misses += expected is None
        assert self.cache.get(key, now_seconds=self.now) == expected

    @rule(key=keys, answer=st.integers())
    def put(self, key, answer):
        self.entries = [entry for entry in self.entries if entry[0] != key]
        self.entries.append((key, answer, self.now))
        if len(self.entries) > self.capacity:
            self.entries.pop(0)
            self.evictions += 1
        self.cache.put(key, answer, now_seconds=self.now)

    @invariant()
    def agrees(self):
        assert len(self.cache) == len(self.entries) <= self.capacity
        assert self.cache.counts == CacheCounts(
            hits=self.hits, misses=self.misses, evictions=self.evictions, expiries=self.expiries
        )


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_least_recently_used_leaves_first():
    cache = ExactCache(capacity_entries=2)
    cache.put(b"a", 1, now_seconds=0)
    cache.put(b"b", 2, now_seconds=0)
    assert cache.get(b"a", now_seconds=1) == 1
    cache.put(b"c", 3, now_seconds=2)
    assert [cache.get(key, now_seconds=3) for key in (b"a", b"b", b"c")] == [1, None, 3]


def test_an_entry_is_good_until_its_age_and_a_hit_does_not_renew_it():
    cache = ExactCache(capacity_entries=2, ttl_seconds=10)
    cache.put(b"a", 1, now_seconds=0)
    assert cache.get(b"a", now_seconds=9.99) == 1
    assert cache.get(b"a", now_seconds=10) is None
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"capacity_entries": 0}, "capacity_entries must be at least 1. Got 0"),
        ({"capacity_entries": 1, "ttl_seconds": 0}, "ttl_seconds must be above 0, or None for ever. Got 0"),
        ({"capacity_entries": 1, "ttl_seconds": float("nan")}, "Got nan"),
    ],
)
def test_bad_limits_are_named(given, match):
    with pytest.raises(InvalidParameterError, match=match):
        ExactCache(**given)


def test_none_cannot_be_stored():
    with pytest.raises(InvalidParameterError, match=r"answer must be anything but None\. Got None"):
        ExactCache(capacity_entries=1).put(b"a", None, now_seconds=0)

import pytest

from halve.techniques.inference.caching.semantic import held
from halve.techniques.inference.caching.semantic.held import MOST_SECONDS, SECONDS_PER_ENTRY, HeldCounts


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


def counted(*, entries, **options):
    """Counts of partitions that all hold as many as `entries` says, a clock, and what was asked of the database."""
    clock, asked = Clock(), []

    def read(statement, parameters):
        asked.append(parameters)
        return [(min(entries[0], parameters[-1]),)]

    return HeldCounts(read, clock=clock, **options), clock, asked


def test_a_count_stands_the_longer_the_more_it_read():
    entries = [1000]
    counts, clock, asked = counted(entries=entries)
    assert counts.held(b"p", at_most=5000, now_seconds=7.0) == 1000
    assert asked == [(b"p", 7.0, 5000)]
    entries[0] = 1001
    clock.seconds += 0.9 * 1000 * SECONDS_PER_ENTRY
    assert counts.held(b"p", at_most=5000, now_seconds=8.0) == 1000
    clock.seconds += 0.2 * 1000 * SECONDS_PER_ENTRY
    assert counts.held(b"p", at_most=5000, now_seconds=9.0) == 1001
    assert len(asked) == 2


def test_no_count_stands_for_long():
    entries = [10**7]
    counts, clock, _ = counted(entries=entries)
    counts.held(b"p", at_most=10**9, now_seconds=0.0)
    entries[0] = 3
    clock.seconds += MOST_SECONDS
    assert counts.held(b"p", at_most=10**9, now_seconds=0.0) == 3


def test_an_empty_partition_is_counted_every_time():
    entries = [0]
    counts, _, _ = counted(entries=entries)
    assert counts.held(b"p", at_most=5, now_seconds=0.0) == 0
    entries[0] = 1
    assert counts.held(b"p", at_most=5, now_seconds=0.0) == 1


def test_what_was_removed_is_not_counted_on():
    entries = [4000]
    counts, _, _ = counted(entries=entries)
    assert counts.held(b"p", at_most=5000, now_seconds=0.0) == 4000
    entries[0] = 3
    counts.forget()
    assert counts.held(b"p", at_most=5000, now_seconds=0.0) == 3


def test_partitions_and_limits_are_told_apart_and_not_remembered_for_ever():
    counts, _, asked = counted(entries=[4000], most_remembered=2)
    for partition, most in ((b"p", 10), (b"q", 10), (b"p", 20), (b"p", 10)):
        assert counts.held(partition, at_most=most, now_seconds=0.0) == most
    assert len(asked) == 4, "the third dropped the first two"


def test_every_store_counts_living_entries_as_far_as_asked(open_store, entry_of, partition_of):
    store, other = open_store(), open_store()
    for partition in ("p", "q", "r"):
        for number in range(3):
            tags = frozenset({partition} if number else ())
            store.put(
                entry_of(f"{number}", partition=partition, degrees=number, expires_seconds=9.0 + number, tags=tags)
            )

    def counts(partition, *, now=0.0):
        return [store.held(partition_of(partition), at_most=most, now_seconds=now) for most in (1, 2, 3, 4)]

    assert counts("none") == [0, 0, 0, 0]
    assert counts("p") == [1, 2, 3, 3]
    assert counts("q", now=10.5) == [1, 1, 1, 1]
    other.invalidate("r")
    assert counts("r") == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "removal", [lambda store: store.invalidate("docs"), lambda store: store.expire(now_seconds=6.0)]
)
def test_every_store_counts_anew_after_a_removal(open_store, entry_of, partition_of, monkeypatch, removal):
    monkeypatch.setattr(held, "SECONDS_PER_ENTRY", 1000.0)  # the count of one entry stands, unless it is forgotten
    store = open_store()
    store.put(entry_of("a", expires_seconds=5.0, tags=frozenset({"docs"})))
    assert store.held(partition_of("p"), at_most=4, now_seconds=0.0) == 1
    removal(store)
    assert store.held(partition_of("p"), at_most=4, now_seconds=0.0) == 0

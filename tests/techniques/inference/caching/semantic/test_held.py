from halve.techniques.inference.caching.semantic.held import MOST_SECONDS, SECONDS_PER_ENTRY, HeldCounts


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


def counted(*, entries):
    """Counts of partitions that all hold as many as `entries` says, a clock, and what was asked of the database."""
    clock, asked = Clock(), []

    def read(statement, parameters):
        asked.append(parameters)
        return [(min(entries[0], parameters[-1]),)]

    return HeldCounts(read, clock=clock), clock, asked


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


def test_partitions_and_limits_are_told_apart_and_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr("halve.techniques.inference.caching.semantic.held._MOST_REMEMBERED", 2)
    counts, _, asked = counted(entries=[4000])
    for partition, most in ((b"p", 10), (b"q", 10), (b"p", 20), (b"p", 10)):
        assert counts.held(partition, at_most=most, now_seconds=0.0) == most
    assert len(asked) == 4, "the third dropped the first two"

import pytest

from halve.techniques.inference.caching.semantic.store import StoredEntry
from halve.techniques.inference.caching.semantic.uses import MOST_NOTED, Uses


def stored(number, *, hits=1, last=2.0):
    return StoredEntry(
        entry=number,
        partition=b"",
        key=b"",
        text="",
        vector=None,
        answer="",
        answer_digest="",
        tags=frozenset(),
        created_seconds=0.0,
        expires_seconds=9.0,
        last_used_seconds=last,
        hits=hits,
        usd_saved_each=0.0,
    )


def test_hits_add_up_and_the_latest_time_stands():
    uses = Uses()
    for seconds in (4.0, 7.0, 5.0):
        assert uses.note(3, now_seconds=seconds) is False
    found = uses.added_to(stored(3))
    assert (found.hits, found.last_used_seconds) == (4, 7.0)
    assert uses.added_to(stored(4)).hits == 1
    assert uses.added_to(stored(3, last=8.0)).last_used_seconds == 8.0
    with uses.taken() as taken:
        assert taken == {3: (3, 7.0)}
    with uses.taken() as taken:
        assert taken == {}


def test_what_could_not_be_written_is_noted_again():
    uses = Uses()
    uses.note(1, now_seconds=5.0)

    def fail():
        with uses.taken():
            uses.note(1, now_seconds=3.0)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    with uses.taken() as taken:
        assert taken == {1: (2, 5.0)}


def test_it_says_when_it_is_time_to_write():
    uses = Uses()
    times = [uses.note(number, now_seconds=0.0) for number in range(MOST_NOTED)]
    assert times == [False] * (MOST_NOTED - 1) + [True]

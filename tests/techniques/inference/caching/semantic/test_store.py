"""The contract of every store, and the entries it takes. The fixture `open_store` opens each kind in turn."""

import math
import threading

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching import exact_key
from halve.techniques.inference.caching.semantic import uses
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.store import (
    FOREVER,
    NewEntry,
    answer_digest,
    to_bytes,
    to_text,
    unit,
)


def texts(store, partition, vector, *, count=10, now=0.0):
    return [each.text for each in store.nearest(partition, vector, count=count, now_seconds=now)]


def test_an_entry_comes_back_as_it_was_put(open_store, entry_of, partition_of, angle):
    store = open_store()
    given = entry_of("hello", degrees=30, now=5.0, tags=frozenset({"docs", "prices"}), usd_saved_each=0.25)
    stored = store.put(given)
    for found in (
        store.get(stored.entry, now_seconds=6.0),
        store.get_exact(partition_of("p"), exact_key("hello"), now_seconds=6.0),
    ):
        assert (found.entry, found.partition, found.key) == (stored.entry, partition_of("p"), exact_key("hello"))
        assert (found.text, found.answer, found.answer_digest) == ("hello", '"yes"', answer_digest('"yes"'))
        assert found.tags == {"docs", "prices"}
        assert (found.created_seconds, found.expires_seconds, found.last_used_seconds) == (5.0, FOREVER, 5.0)
        assert (found.hits, found.usd_saved_each) == (0, 0.25)
        assert found.vector == pytest.approx(angle(30), abs=1e-3)
    assert (stored.expired, stored.evicted, len(store)) == (0, 0, 1)
    assert store.size_bytes == given.size_bytes == len("hello") + len('"yes"') + len("docs") + len("prices") + 2 * 2


def test_what_is_not_there_is_none(open_store, entry_of, partition_of):
    store = open_store()
    assert store.get(1, now_seconds=0.0) is None
    assert store.nearest(partition_of("p"), np.ones(2), count=3, now_seconds=0.0) == []
    store.put(entry_of("a", partition="p"))
    assert store.get_exact(partition_of("q"), exact_key("a"), now_seconds=0.0) is None
    assert store.get_exact(partition_of("p"), exact_key("b"), now_seconds=0.0) is None


def test_the_nearest_come_by_falling_cosine(open_store, entry_of, partition_of, angle):
    store = open_store()
    for degrees in (0, 90, 45, 180, 10):
        store.put(entry_of(f"{degrees}", degrees=degrees, answer=f"{degrees}"))
    found = store.nearest(partition_of("p"), 7 * angle(0), count=4, now_seconds=0.0)
    assert [each.text for each in found] == ["0", "10", "45", "90"]
    assert [each.cosine for each in found] == pytest.approx([1, math.cos(math.pi / 18), math.sqrt(0.5), 0], abs=1e-3)
    assert [each.answer for each in found] == [answer_digest(each.text) for each in found]
    assert len(store.nearest(partition_of("p"), angle(0), count=50, now_seconds=0.0)) == 5


def test_no_search_leaves_its_partition(open_store, entry_of, partition_of, angle):
    store = open_store()
    for number in range(40):
        store.put(entry_of(f"{number}", partition=f"tenant {number % 4}", degrees=number / 10))
    for tenant in range(4):
        found = texts(store, partition_of(f"tenant {tenant}"), angle(0), count=40)
        assert sorted(map(int, found)) == list(range(tenant, 40, 4))


def test_the_same_text_is_stored_once_and_the_later_answer_stands(open_store, entry_of, partition_of, angle):
    store = open_store()
    first = store.put(entry_of("a", answer="1", tags=frozenset({"old"})))
    second = store.put(entry_of("a", answer="2", now=1.0))
    assert second.entry > first.entry
    assert len(store) == 1
    assert store.get(first.entry, now_seconds=1.0) is None
    assert store.get_exact(partition_of("p"), exact_key("a"), now_seconds=1.0).answer == "2"
    assert texts(store, partition_of("p"), angle(0), now=1.0) == ["a"]
    assert store.invalidate("old") == 0


def test_the_same_text_lives_once_in_every_partition(open_store, entry_of, partition_of):
    store = open_store()
    for word in ("p", "q"):
        store.put(entry_of("a", partition=word, answer=f'"{word}"'))
    for word in ("p", "q"):
        assert store.get_exact(partition_of(word), exact_key("a"), now_seconds=0.0).answer == f'"{word}"'


def test_an_entry_is_over_at_its_end_and_leaves_with_the_next_put(open_store, entry_of, partition_of, angle):
    store = open_store()
    old = store.put(entry_of("old", expires_seconds=10.0)).entry
    store.put(entry_of("young", degrees=20))
    assert texts(store, partition_of("p"), angle(0), now=9.99) == ["old", "young"]
    assert store.get(old, now_seconds=9.99) is not None
    assert texts(store, partition_of("p"), angle(0), count=1, now=10.0) == ["young"]
    assert store.get(old, now_seconds=10.0) is None
    assert store.get_exact(partition_of("p"), exact_key("old"), now_seconds=10.0) is None
    assert len(store) == 2
    assert store.put(entry_of("new", now=10.0)).expired == 1
    assert len(store) == 2


def test_expire_removes_what_is_over(open_store, entry_of):
    store = open_store()
    for number in range(5):
        store.put(entry_of(f"{number}", expires_seconds=number + 1.0))
    assert [store.expire(now_seconds=seconds) for seconds in (0.5, 3.0, 3.0, 9.0)] == [0, 3, 0, 2]
    assert (len(store), store.size_bytes) == (0, 0)


def test_many_expired_neighbours_do_not_hide_a_living_one(open_store, entry_of, partition_of, angle):
    store = open_store()
    store.put(entry_of("living", degrees=80))
    for number in range(30):
        store.put(entry_of(f"{number}", degrees=number / 10, expires_seconds=5.0))
    assert texts(store, partition_of("p"), angle(0), count=2, now=6.0) == ["living"]


def test_a_tag_removes_its_entries_in_every_partition(open_store, entry_of, partition_of, angle):
    store = open_store()
    store.put(entry_of("a", partition="p", tags=frozenset({"docs", "prices"})))
    store.put(entry_of("b", partition="p", degrees=5, tags=frozenset({"prices"})))
    store.put(entry_of("c", partition="q", tags=frozenset({"docs"})))
    assert store.invalidate("docs") == 2
    assert store.invalidate("docs") == 0
    assert texts(store, partition_of("p"), angle(0)) == ["b"]
    assert texts(store, partition_of("q"), angle(0)) == []
    assert len(store) == 1


def test_many_are_put_at_once_or_none(open_store, entry_of, partition_of, angle):
    store = open_store(limits=Limits(entries=4, size_bytes=1_000))
    done = store.put_many([entry_of(text, degrees=10 * place) for place, text in enumerate("abcab")])
    assert [each.evicted for each in done] == [0] * 5
    assert len({each.entry for each in done}) == 5
    assert sorted(texts(store, partition_of("p"), angle(0))) == ["a", "b", "c"]
    with pytest.raises(InvalidParameterError, match="the entry must be at most 1000 bytes"):
        store.put_many([entry_of("d"), entry_of("e", answer='"' + "x" * 1_000 + '"')])
    assert len(store) == 3
    assert [each.evicted for each in store.put_many([entry_of("d"), entry_of("e")])] == [0, 1]
    assert store.put_many([]) == []


def test_hits_are_noted_and_survive_closing(open_store, entry_of):
    store = open_store()
    number = store.put(entry_of("a")).entry
    for seconds in (3.0, 8.0, 5.0):
        store.used(number, now_seconds=seconds)
    found = store.get(number, now_seconds=9.0)
    assert (found.hits, found.last_used_seconds) == (3, 8.0)
    store.close()
    found = open_store().get(number, now_seconds=9.0)
    assert (found.hits, found.last_used_seconds) == (3, 8.0)


def test_many_noted_hits_are_written_without_a_put(open_store, entry_of, monkeypatch):
    monkeypatch.setattr(uses, "MOST_NOTED", 3)
    store, other = open_store(), open_store()
    numbers = [store.put(entry_of(text)).entry for text in "abc"]
    for number in numbers[:2]:
        store.used(number, now_seconds=1.0)
    assert [other.get(number, now_seconds=1.0).hits for number in numbers] == [0, 0, 0]
    store.used(numbers[2], now_seconds=1.0)
    assert [other.get(number, now_seconds=1.0).hits for number in numbers] == [1, 1, 1]


def test_everything_is_there_after_opening_again(open_store, entry_of, partition_of, angle):
    store = open_store()
    for degrees in range(0, 90, 5):
        store.put(entry_of(f"{degrees}", degrees=degrees))
    before = store.nearest(partition_of("p"), angle(31), count=6, now_seconds=0.0)
    store.close()
    after = open_store().nearest(partition_of("p"), angle(31), count=6, now_seconds=0.0)
    assert [(each.entry, each.text) for each in after] == [(each.entry, each.text) for each in before]
    assert [each.text for each in after] == ["30", "35", "25", "40", "20", "45"]


def test_numbers_are_never_given_twice(open_store, entry_of):
    store = open_store()
    numbers = []
    for tag in ("x", "y", "z"):
        numbers.append(store.put(entry_of("a", tags=frozenset({tag}))).entry)
        store.invalidate(tag)
    store.close()
    numbers.append(open_store().put(entry_of("b")).entry)
    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize(
    ("policy", "leaves"),
    [("lru", "b"), ("lfu", "c"), ("cost", "a")],
)
def test_who_leaves_first(open_store, entry_of, partition_of, policy, leaves):
    """At 10 s: a has 2 hits and saves little, b was used longest ago, c has the fewest hits."""
    store = open_store(limits=Limits(entries=3, policy=policy))
    numbers = {
        text: store.put(entry_of(text, degrees=20 * place, usd_saved_each=usd)).entry
        for place, (text, usd) in enumerate([("a", 0.001), ("b", 1.0), ("c", 1.0)])
    }
    for text, seconds in [("b", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0), ("a", 5.0)]:
        store.used(numbers[text], now_seconds=seconds)
    assert store.put(entry_of("d", now=10.0, usd_saved_each=0.0)).evicted == 1
    left = {text for text in "abcd" if store.get_exact(partition_of("p"), exact_key(text), now_seconds=10.0)}
    assert left == set("abcd") - {leaves}


def test_the_size_limit_holds_and_bytes_are_counted(open_store, entry_of):
    size = entry_of("a").size_bytes
    store = open_store(limits=Limits(size_bytes=3 * size, slack_share=0.0))
    evicted = [store.put(entry_of(text, now=float(place))).evicted for place, text in enumerate("abcde")]
    assert evicted == [0, 0, 0, 1, 1]
    assert (len(store), store.size_bytes) == (3, 3 * size)
    big = entry_of("f", now=9.0, answer='"' + "x" * (size + 3) + '"')
    assert size < big.size_bytes <= 3 * size
    assert store.put(big).evicted == 2
    with pytest.raises(InvalidParameterError, match=rf"the entry must be at most {3 * size} bytes, all that the store"):
        store.put(entry_of("g", answer='"' + "x" * 3 * size + '"'))


def test_slack_lets_several_leave_at_once(open_store, entry_of):
    store = open_store(limits=Limits(entries=10, slack_share=0.3))
    evicted = [store.put(entry_of(f"{number}", degrees=number, now=float(number))).evicted for number in range(12)]
    assert evicted == [0] * 10 + [4, 0]
    assert len(store) == 8


def test_vectors_come_in_the_order_asked_for(open_store, entry_of, angle):
    store = open_store()
    numbers = [store.put(entry_of(f"{degrees}", degrees=degrees)).entry for degrees in (0, 30, 60)]
    found = store.vectors([numbers[2], 999, numbers[0]])
    assert found.dtype == np.float32
    assert found == pytest.approx(np.stack([angle(60), [0, 0], angle(0)]), abs=1e-3)
    assert store.vectors([]).shape == (0, 2)


def test_any_text_can_be_stored(open_store, entry_of, partition_of, angle):
    store = open_store()
    odd = [
        "",
        "zero \0 byte",
        "half a pair \ud83d",
        "\ud83d\ude00 in halves",
        "😀 whole",
        "'; DROP TABLE entries; --",
        "100 %s ?",
    ]
    for number, text in enumerate(odd):
        store.put(entry_of(text, degrees=number, answer='"😀 \\u0000"', tags=frozenset({text})))
    assert texts(store, partition_of("p"), angle(0)) == odd
    for text in odd:
        found = store.get_exact(partition_of("p"), exact_key(text), now_seconds=0.0)
        assert (found.text, found.answer, found.tags) == (text, '"😀 \\u0000"', {text})
        assert store.invalidate(text) == 1


def test_another_encoders_store_is_refused(open_store, entry_of):
    open_store(encoder="minilm", dimension=2).put(entry_of("a"))
    with pytest.raises(InvalidParameterError, match=r"encoder must be 'minilm', as in .*. Got 'e5'. Vectors of two"):
        open_store(encoder="e5", dimension=2)
    with pytest.raises(InvalidParameterError, match=r"dimension must be '2', as in .*. Got '3'"):
        open_store(encoder="minilm", dimension=3)
    assert len(open_store()) == 1


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        (np.ones(3), r"vector must be of shape \(2,\), as the store's encoder makes them. Got \(3,\)"),
        (np.zeros(2), "vector must be finite and longer than 0. Got 'length 0.0'"),
        (np.asarray([1.0, np.nan]), "Got 'length nan'"),
        (np.ones((1, 2)), r"Got \(1, 2\)"),
    ],
)
def test_a_vector_that_is_none_is_refused(open_store, partition_of, vector, match):
    with pytest.raises(InvalidParameterError, match=match):
        open_store().nearest(partition_of("p"), vector, count=1, now_seconds=0.0)


def test_bad_questions_are_named(open_store, entry_of, partition_of):
    store = open_store()
    with pytest.raises(InvalidParameterError, match=r"vector must be of shape \(2,\)"):
        store.put(entry_of("a", vector=np.ones(3)))
    with pytest.raises(InvalidParameterError, match=r"count must be at least 1. Got 0"):
        store.nearest(partition_of("p"), np.ones(2), count=0, now_seconds=0.0)
    for options, match in (
        ({"dimension": 0}, r"dimension must be in \[1, 4000\]. Got 0"),
        ({"exact_entries": 0}, "exact_entries must be at least 1. Got 0"),
    ):
        with pytest.raises(InvalidParameterError, match=match):
            open_store(**options)


def test_two_handles_see_each_other(open_store, entry_of, partition_of, angle):
    one, other = open_store(), open_store()
    assert texts(other, partition_of("p"), angle(0)) == []
    for number in range(20):
        one.put(entry_of(f"{number}", degrees=number, tags=frozenset({f"{number % 2}"})))
    assert texts(other, partition_of("p"), angle(0), count=3) == ["0", "1", "2"]
    assert other.invalidate("0") == 10
    assert texts(one, partition_of("p"), angle(0), count=3) == ["1", "3", "5"]
    other.put(entry_of("1", degrees=90))
    assert texts(one, partition_of("p"), angle(0), count=20)[-1] == "1"
    assert len(one) == len(other) == 10


def test_threads_lose_nothing(open_store, entry_of, partition_of, angle):
    store, problems = open_store(limits=Limits(entries=1_000)), []

    def work(thread):
        try:
            for number in range(15):
                text = f"{thread}-{number}"
                entry = store.put(entry_of(text, degrees=thread + number / 20)).entry
                store.used(entry, now_seconds=1.0)
                assert store.get(entry, now_seconds=1.0).text == text
                assert text in texts(store, partition_of("p"), angle(thread + number / 20), count=200)
        except BaseException as error:  # a thread's failure is the test's
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(store) == 90


def test_an_entry_has_unit_length_and_a_size(entry_of):
    entry = entry_of("né", vector=np.asarray([3.0, 4.0]), answer="[1]", tags=frozenset({"t"}))
    assert entry.vector == pytest.approx([0.6, 0.8])
    assert entry.vector.dtype == np.float32
    assert entry.size_bytes == 3 + 3 + 1 + 4


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"answer": "no json"}, "answer must be JSON text. Got 'no json'"),
        ({"expires_seconds": 0.0}, "expires_seconds must be later than created_seconds, 0.0. Got 0.0"),
        ({"now": math.inf}, "created_seconds must be finite. Got inf"),
        ({"usd_saved_each": -1.0}, "usd_saved_each must be at least 0 and finite. Got -1.0"),
        ({"usd_saved_each": math.nan}, "usd_saved_each must be at least 0 and finite. Got nan"),
        ({"vector": np.ones((2, 2))}, r"vector must be of shape \(d,\), d from 1 to 4000. Got \(2, 2\)"),
    ],
)
def test_a_bad_entry_is_refused(entry_of, given, match):
    with pytest.raises(InvalidParameterError, match=match):
        entry_of("a", **given)


GIVEN = ("partition", "key", "text", "vector", "answer", "created_seconds")


def test_keys_have_thirty_two_bytes(entry_of):
    good = entry_of("a")
    for name in ("partition", "key"):
        with pytest.raises(InvalidParameterError, match=f"{name} must be 32 bytes. Got b'short'"):
            NewEntry(**{field: getattr(good, field) for field in GIVEN} | {name: b"short"})


def test_texts_become_bytes_and_back():
    for text in ("", "é", "\ud83d", "\ud83d\ude00", "😀", "\0"):
        assert to_text(to_bytes(text)) == text
    assert to_bytes("\ud83d\ude00") != to_bytes("😀")
    assert unit(np.asarray([0.0, 5.0])).tolist() == [0.0, 1.0]

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.eviction import ORDER_SQL, Limits


def order(policy, rows, *, now):
    """Numbers in the order of leaving, as SQLite computes it."""
    connection = sqlite3.connect(":memory:")
    names = "entry, last_used_seconds, hits, usd_saved_each, size_bytes, created_seconds"
    connection.execute(f"CREATE TABLE entries ({names})")
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)
    by = Limits(policy=policy).order_sql(now_seconds=now)
    found = [number for (number,) in connection.execute(f"SELECT entry FROM entries ORDER BY {by}")]
    connection.close()
    return found


ROWS = [
    (1, 5.0, 1, 0.02, 100, 0.0),
    (2, 3.0, 1, 0.02, 100, 0.0),
    (3, 9.0, 0, 0.02, 10, 9.0),
    (4, 4.0, 7, 0.001, 400, 0.0),
]


@pytest.mark.parametrize(("policy", "expected"), [("lru", [2, 4, 1, 3]), ("lfu", [3, 2, 1, 4]), ("cost", [4, 1, 2, 3])])
def test_the_orders_by_hand(policy, expected):
    """Cost at 10 s, in USD a byte-second: 2 x .02 / (100 x 11), the same, 1 x .02 / (10 x 2), 8 x .001 / (400 x 11)."""
    assert order(policy, ROWS, now=10.0) == expected


def test_a_clock_that_went_back_does_no_harm():
    assert order("cost", [(1, 0.0, 0, 1.0, 1, 50.0), (2, 0.0, 0, 0.5, 1, 50.0)], now=10.0) == [2, 1]


@given(
    st.lists(st.integers(1, 50), max_size=30),
    st.none() | st.integers(1, 40),
    st.none() | st.integers(50, 900),
    st.floats(0, 0.5),
)
def test_as_few_leave_as_keep_the_limits(sizes, entries, size_bytes, slack):
    limits = Limits(entries=entries, size_bytes=size_bytes, slack_share=slack)
    leaving = limits.victims(enumerate(sizes), entries=len(sizes), size_bytes=sum(sizes))
    assert leaving == list(range(len(leaving)))

    def over(count, of):
        left = sizes[count:]
        most = (
            (entries, size_bytes)
            if of == 0
            else [None if limit is None else limit - int(limit * of) for limit in (entries, size_bytes)]
        )
        return any(
            limit is not None and value > limit for value, limit in zip((len(left), sum(left)), most, strict=True)
        )

    if leaving:
        assert over(0, 0)
        assert not over(len(leaving), slack)
        assert over(len(leaving) - 1, slack)
    else:
        assert not over(0, 0)


@pytest.mark.parametrize(
    ("given_", "match"),
    [
        ({"entries": 0}, "limits.entries must be at least 1, or None for no limit. Got 0"),
        ({"size_bytes": -1}, "limits.size_bytes must be at least 1, or None for no limit. Got -1"),
        ({"policy": "fifo"}, "limits.policy must be one of lru, lfu, cost. Got 'fifo'"),
        ({"slack_share": 0.6}, r"limits.slack_share must be in \[0, 0.5\]. Got 0.6"),
    ],
)
def test_bad_limits_are_named(given_, match):
    with pytest.raises(InvalidParameterError, match=match):
        Limits(**given_)


def test_an_entry_that_can_never_fit_is_refused():
    Limits(size_bytes=10).check_fits(10)
    with pytest.raises(InvalidParameterError, match=r"the entry must be at most 10 bytes, all that .* hold. Got 11"):
        Limits(size_bytes=10).check_fits(11)
    assert set(ORDER_SQL) == {"lru", "lfu", "cost"}

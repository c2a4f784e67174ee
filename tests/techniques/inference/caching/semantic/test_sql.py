"""The statements on a bare SQLite connection; what they mean for a store is in test_store.py."""

import sqlite3

import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import sql
from halve.techniques.inference.caching.semantic.eviction import Limits

TYPES = {
    "number": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "reference": "INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE",
    "bytes": "BLOB",
    "vector": "BLOB",
}


@pytest.fixture
def run():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    for _ in range(2):  # making them again changes nothing
        for table in sql.TABLES:
            connection.execute(table.format(**TYPES))

    def run(statement, parameters):
        return connection.execute(statement, parameters).fetchall()

    sql.check_meta(run, source="here", encoder="minilm", dimension=2)
    yield run
    connection.close()


def totals(run):
    return run("SELECT entries, size_bytes FROM totals", ())[0]


def put(run, entry, **limits):
    return sql.put(run, entry, vector=b"", limits=Limits(slack_share=0.0, **limits))


def test_totals_are_what_is_there(run, entry_of):
    for number in range(30):
        put(run, entry_of(f"{number % 9}", now=float(number), expires_seconds=number + 7.5), entries=6)
        assert totals(run) == run("SELECT count(*), sum(size_bytes) FROM entries", ())[0]
        for table in ("answers", "vectors"):
            assert run(f"SELECT count(*) FROM {table}", ())[0][0] == totals(run)[0]
    assert totals(run)[0] == 6


def test_what_a_put_changed_is_said(run, entry_of, partition_of):
    first = put(run, entry_of("a", expires_seconds=5.0))
    second = put(run, entry_of("b", now=1.0))
    done = put(run, entry_of("b", now=6.0))
    assert (done.expired, done.replaced) == ([(first.entry, partition_of("p"))], [(second.entry, partition_of("p"))])
    last = put(run, entry_of("c", now=7.0), entries=1)
    assert last.evicted == [(done.entry, partition_of("p"))]


def test_what_hangs_on_an_entry_leaves_with_it(run, entry_of):
    put(run, entry_of("a", tags=frozenset({"x", "y"})))
    assert len(sql.remove_tagged(run, "x")) == 1
    for table in ("entries", "answers", "vectors", "tags"):
        assert run(f"SELECT count(*) FROM {table}", ()) == [(0,)]
    assert totals(run) == (0, 0)


def test_many_victims_are_found_by_reading_on(run, entry_of):
    for number in range(200):
        put(run, entry_of(f"{number}", now=float(number)))
    done = sql.put(run, entry_of("last", now=200.0), vector=b"", limits=Limits(entries=20))
    assert len(done.evicted) == 181
    assert [
        int(text) for (text,) in run("SELECT text FROM entries WHERE text <> ? ORDER BY entry", (b"last",))
    ] == list(range(181, 200))


def test_uses_add_up(run, entry_of):
    number = put(run, entry_of("a", now=5.0)).entry
    sql.write_uses(run, {number: (2, 3.0), 999: (1, 1.0)})
    sql.write_uses(run, {number: (1, 8.0)})
    assert run("SELECT hits, last_used_seconds FROM entries", ()) == [(3, 8.0)]


def test_an_unknown_form_is_refused(run):
    run("UPDATE meta SET value = 'halve.semantic-cache/9' WHERE name = 'schema'", ())
    with pytest.raises(InvalidParameterError, match=r"schema must be 'halve.semantic-cache/9', as in here. Got"):
        sql.check_meta(run, source="here", encoder="minilm", dimension=2)


def test_chunks_hold_every_number_once():
    numbers = list(range(1_203))
    chunks = list(sql.in_chunks(numbers))
    assert [number for _, group in chunks for number in group] == numbers
    assert all(marks.count("?") == len(group) <= 500 for marks, group in chunks)
    assert list(sql.in_chunks([])) == []

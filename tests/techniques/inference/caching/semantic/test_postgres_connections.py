import threading

import pytest

from halve.errors import StorageError
from halve.techniques.inference.caching.semantic.postgres_connections import PostgresConnections


@pytest.fixture
def connections(postgres_url, postgres_schema):
    prepared = []

    def prepare(run):
        run("SET client_min_messages = warning", ())
        run(f"CREATE SCHEMA IF NOT EXISTS {postgres_schema}", ())
        run(f"SET search_path = {postgres_schema}", ())
        prepared.append(1)

    connections = PostgresConnections(postgres_url, prepare=prepare, most_idle=2)
    connections.prepared = prepared
    connections.transaction(lambda run: run("CREATE TABLE t (x BIGINT PRIMARY KEY, y BIGINT)", ()))
    yield connections
    connections.close()


def test_all_or_nothing(connections):
    def fails(run):
        run("INSERT INTO t VALUES (1, 1)", ())
        raise KeyError("x")

    with pytest.raises(KeyError):
        connections.transaction(fails)
    with pytest.raises(StorageError, match="could not be read or written: duplicate key value violates"):
        connections.transaction(lambda run: [run("INSERT INTO t VALUES (?, 1)", (x,)) for x in (2, 2)])
    assert connections.read("SELECT * FROM t", ()) == []
    assert connections.transaction(lambda run: run("INSERT INTO t VALUES (?, ?) RETURNING x", (3, 4))) == [(3,)]
    assert connections.read("SELECT x, y FROM t WHERE x = ?", (3,)) == [(3, 4)]


def test_writers_come_one_at_a_time(connections):
    connections.transaction(lambda run: run("INSERT INTO t VALUES (1, 0)", ()))

    def add(run):
        ((y,),) = run("SELECT y FROM t", ())
        run("UPDATE t SET y = ?", (y + 1,))

    def work():
        for _ in range(20):
            connections.transaction(add)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert connections.read("SELECT y FROM t", ()) == [(100,)]
    assert len(connections._idle) <= 2


def test_connections_are_kept_and_prepared_once(connections):
    for _ in range(5):
        connections.read("SELECT 1", ())
    assert len(connections.prepared) == 1
    connections.close()
    assert connections.read("SELECT 1", ()) == [(1,)]
    assert len(connections.prepared) == 2

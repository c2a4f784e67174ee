"""What only the shared store promises; the contract of every store is in test_store.py."""

import builtins
import os
import subprocess
import sys

import numpy as np
import pytest

from halve.errors import InvalidParameterError, MissingExtraError, StorageError
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.postgres import PostgresStore

DIMENSION = 16


def vector_of(number):
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


@pytest.fixture
def options(postgres_schema):
    return {"encoder": "minilm", "dimension": DIMENSION, "schema": postgres_schema}


GATEWAY = """
import sys, time
import numpy as np
from halve.techniques.inference.caching.semantic.cache import SemanticCache
from halve.techniques.inference.caching.semantic.neighbour import Decision
from halve.techniques.inference.caching.semantic.postgres import PostgresStore
from halve.techniques.inference.caching.semantic.eviction import Limits

url, options, name = sys.argv[1], eval(sys.argv[2]), sys.argv[3]

def encode(texts):
    number = int(texts[0].split()[-1])
    return np.random.default_rng(number).standard_normal((1, options["dimension"])).astype(np.float32)

def decide(text, neighbours):
    first = neighbours[0]
    return Decision(hit=first.cosine > 0.99, entry=first.entry, probability=1.0, reason="near")

with PostgresStore(url, limits=Limits(entries=500), **options) as store:
    cache = SemanticCache(store=store, encode=encode, decide=decide)
    print("ready", flush=True)
    for line in sys.stdin:
        verb, number = line.split()
        partition = b"p" * 32
        if verb == "put":
            cache.put(partition, f"asked by {name} {number}", f'"from {name}"', now_seconds=1.0)
            print("done", flush=True)
        else:
            found = cache.lookup(partition, f"{verb} by {name} {number}", now_seconds=2.0)
            print(found.found, found.answer, flush=True)
"""


class Gateway:
    """A process with a cache of its own, on the shared store."""

    def __init__(self, url, options, name):
        self.process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, url, repr(options), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def read(self):
        return self.process.stdout.readline().strip()

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def test_two_gateways_share_one_cache(postgres_url, options):
    gateways = [Gateway(postgres_url, options, name) for name in ("anna", "bert")]
    try:
        anna, bert = gateways
        assert [each.read() for each in gateways] == ["ready", "ready"]  # both made the tables, at once
        assert bert.ask("look 1") == "miss None"
        assert anna.ask("put 1") == "done"
        assert bert.ask("look 1") == 'semantic "from anna"'
        assert anna.ask("asked 1") == 'exact "from anna"'
        assert bert.ask("put 2") == "done"
        assert anna.ask("look 2") == 'semantic "from bert"'
        for number in range(10, 60):
            for each in gateways:
                each.process.stdin.write(f"put {number}\n")
                each.process.stdin.flush()
        for each in gateways:
            assert [each.read() for _ in range(50)] == ["done"] * 50
    finally:
        for each in gateways:
            each.close()
    with PostgresStore(postgres_url, **options) as store:
        assert len(store) == 102


def test_a_large_partition_is_searched_by_the_index(postgres_url, options, entry_of, partition_of):
    with PostgresStore(postgres_url, exact_entries=200, **options) as store:
        for number in range(600):
            store.put(entry_of(f"{number}", vector=vector_of(number), partition="pq"[number % 6 == 0]))
        for partition, step in (("p", 1), ("q", 6)):
            store.nearest(partition_of(partition), vector_of(0), count=1, now_seconds=0.0)
            numbers = [number for number in range(0, 600, step) if (number % 6 == 0) == (partition == "q")]
            found = [store.nearest(partition_of(partition), vector_of(n), count=3, now_seconds=0.0) for n in numbers]
            assert np.mean([near[0].text == f"{n}" for near, n in zip(found, numbers, strict=True)]) >= 0.99
            assert all(len(near) == 3 for near in found)
        assert list(store._large) == [partition_of("p")]


def test_limits_hold_for_all_gateways_together(postgres_url, options, entry_of):
    stores = [PostgresStore(postgres_url, limits=Limits(entries=10), **options) for _ in range(2)]
    for number in range(30):
        stores[number % 2].put(entry_of(f"{number}", vector=vector_of(number), now=float(number)))
        assert len(stores[0]) == min(10, number + 1)
    for store in stores:
        store.close()


def test_a_broken_connection_is_made_anew(postgres_url, options, entry_of):
    import psycopg

    with PostgresStore(postgres_url, **options) as store:
        number = store.put(entry_of("a", vector=vector_of(0))).entry
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            end = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = %s"
            )
            admin.execute(end, ("postgres",))
        assert store.get(number, now_seconds=0.0).text == "a"
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(end, ("postgres",))
        store.put(entry_of("b", vector=vector_of(1)))
        assert len(store) == 2


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"the cache in PostgreSQL could not be read or written: .*No such file"):
        PostgresStore(f"postgresql://postgres@/postgres?host={tmp_path}", encoder="e", dimension=2)


@pytest.mark.parametrize("schema", ["", "Halve", "a b", "halve; DROP", "1st", "hälve"])
def test_a_bad_schema_is_refused(schema):
    with pytest.raises(InvalidParameterError, match=r"schema must be a word of a-z, 0-9 and _. Got"):
        PostgresStore("postgresql://nowhere", encoder="e", dimension=2, schema=schema)


def test_a_missing_psycopg_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("psycopg"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"a cache in PostgreSQL needs psycopg: pip install 'halve\[cache\]'"):
        PostgresStore("postgresql://nowhere", encoder="e", dimension=2)

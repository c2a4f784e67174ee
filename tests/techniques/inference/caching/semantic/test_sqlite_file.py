import sqlite3
import threading
from pathlib import Path

import pytest

from halve.errors import RunFolderError, StorageError
from halve.techniques.inference.caching.semantic.sqlite_file import SQLiteFile


@pytest.fixture
def file(tmp_path):
    file = SQLiteFile(tmp_path / "folder" / "file.sqlite")
    file.transaction(lambda run: run("CREATE TABLE t (x INTEGER PRIMARY KEY)", ()))
    yield file
    file.close()


def rows(file):
    return [x for (x,) in file.read("SELECT x FROM t ORDER BY x", ())]


def test_all_or_nothing(file):
    file.transaction(lambda run: [run("INSERT INTO t VALUES (?)", (x,)) for x in (1, 2)])

    def fails(run):
        run("INSERT INTO t VALUES (3)", ())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file.transaction(fails)
    with pytest.raises(
        StorageError, match=r"file.sqlite could not be read or written: UNIQUE constraint failed: t.x\."
    ):
        file.transaction(lambda run: [run("INSERT INTO t VALUES (?)", (x,)) for x in (4, 1)])
    assert rows(file) == [1, 2]
    assert file.is_sound()


def test_it_is_synced_at_every_commit_and_read_while_written(file, tmp_path):
    assert rows(file) == []
    assert file.read("PRAGMA journal_mode", ()) == [("wal",)]
    assert file.transaction(lambda run: run("PRAGMA synchronous", ())) == [(2,)]
    seen = []

    def work(run):
        run("INSERT INTO t VALUES (1)", ())
        reader = threading.Thread(target=lambda: seen.append(rows(file)))
        reader.start()
        reader.join(10)

    file.transaction(work)
    assert (seen, rows(file)) == ([[]], [1])


def test_another_connection_sees_what_is_committed(file, tmp_path):
    other = SQLiteFile(file.path)
    version = other.read("PRAGMA data_version", ())
    file.transaction(lambda run: run("INSERT INTO t VALUES (1)", ()))
    assert rows(other) == [1]
    assert other.read("PRAGMA data_version", ()) != version
    other.close()


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database " * 100)
    with pytest.raises(RunFolderError, match=r"notes.txt must be a semantic cache of halve: file is not a database"):
        SQLiteFile(path)
    assert path.read_text().startswith("no database")


def test_a_path_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        SQLiteFile(tmp_path / "file" / "cache.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="could not be read or written: unable to open database file"):
        SQLiteFile(tmp_path / "folder")


def test_a_full_disk_leaves_what_was_there(file):
    file.transaction(lambda run: run("INSERT INTO t VALUES (1)", ()))
    pages = file.transaction(lambda run: run("PRAGMA page_count", ()))[0][0]
    file.transaction(lambda run: run(f"PRAGMA max_page_count = {pages}", ()))
    with pytest.raises(StorageError, match="database or disk is full"):
        file.transaction(lambda run: [run("INSERT INTO t VALUES (?)", (x,)) for x in range(2, 5_000)])
    assert rows(file) == [1]
    file.transaction(lambda run: run("INSERT INTO t VALUES (2)", ()))
    assert rows(file) == [1, 2]


def test_what_cannot_be_written_ahead_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        StorageError, match=":memory: could not be opened: its file system has no shared memory for WAL"
    ):
        SQLiteFile(Path(":memory:"))


def test_closing_closes(file):
    file.close()
    with pytest.raises(StorageError, match="Cannot operate on a closed database"):
        file.read("SELECT 1", ())
    assert sqlite3.threadsafety == 3

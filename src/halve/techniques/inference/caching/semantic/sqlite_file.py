"""One SQLite file: two connections, transactions that are all or nothing, errors in halve's form."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, final

from halve.errors import RunFolderError, StorageError
from halve.techniques.inference.caching.semantic.sql import Run

T = TypeVar("T")

_BUSY_SECONDS: Final = 30.0
"""How long a writer waits for another process's."""

_MAPPED_BYTES: Final = 2**30
"""So much of the file is read without a system call a page."""


@final
class SQLiteFile:
    """A file in WAL mode, synced at every commit. Readers never wait for writers. Not to be carried through a fork.

    Args:
        path: The file; made if it is not there.

    Raises:
        RunFolderError: If it is no SQLite file.
        StorageError: If it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing, self._reading = threading.RLock(), threading.RLock()
        with self._in_our_words():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer, self._reader = _connect(path), _connect(path)
            try:
                self._write_ahead()
            except BaseException:
                self.close()
                raise

    def read(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that writes nothing."""
        with self._in_our_words(), self._reading:
            return self._reader.execute(statement, parameters).fetchall()

    def transaction(self, work: Callable[[Run], T]) -> T:
        """Do all of this or nothing; it is on disk when this returns."""
        with self._in_our_words(), self._writing:
            connection = self._writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(lambda statement, parameters: connection.execute(statement, parameters).fetchall())
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

    def is_sound(self) -> bool:
        """Return whether SQLite finds no damage. Reads the whole file."""
        return self.read("PRAGMA integrity_check", ()) == [("ok",)]

    def close(self) -> None:
        """Close both connections."""
        with self._writing:
            self._writer.close()
        with self._reading:
            self._reader.close()

    def _write_ahead(self) -> None:
        if self._writer.execute("PRAGMA journal_mode = WAL").fetchall() != [("wal",)]:
            raise StorageError(f"{self.path} could not be opened: its file system has no shared memory for WAL mode.")

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "not a database" in str(error) or "malformed" in str(error):
                raise RunFolderError(f"{self.path} must be a semantic cache of halve: {error}.") from error
            raise StorageError(f"{self.path} could not be read or written: {error}.") from error
        except OSError as error:
            raise StorageError.of(self.path, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
    return connection

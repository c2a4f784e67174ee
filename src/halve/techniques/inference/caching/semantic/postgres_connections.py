"""Connections to one PostgreSQL database, lent to one thread at a time; errors in halve's form."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from halve.errors import MissingExtraError, StorageError
from halve.techniques.inference.caching.semantic.sql import Run

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

_WRITERS_LOCK: Final = 0x68616C7665
"""Key of the advisory lock under which caches are written: "halve"."""


@final
class PostgresConnections:
    """Connections that are made when needed and kept.

    Args:
        url: As libpq takes it: `postgresql://user:password@host/database`.
        prepare: Run once on every new connection.
        most_idle: Connections that are kept open though nobody uses them, >= 1.

    Raises:
        MissingExtraError: If psycopg is not installed.
    """

    def __init__(self, url: str, *, prepare: Callable[[Run], None], most_idle: int = 8) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingExtraError("a cache in PostgreSQL", package="psycopg", extra="cache") from None
        self._psycopg = psycopg
        self._url, self._prepare, self._most_idle = url, prepare, most_idle
        self._idle: list[psycopg.Connection[tuple[Any, ...]]] = []
        self._lock = threading.Lock()

    def read(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of one statement."""
        return self._lend(lambda connection: _run_on(connection)(statement, parameters))

    def transaction(self, work: Callable[[Run], T], *, as_writer: bool = True) -> T:
        """Do all of this or nothing; it is on disk when this returns. Writers, of whatever process, come one at a time.

        What was sent and may have been committed before the connection broke is done again: `work` must allow that.
        """

        def inside(connection: "psycopg.Connection[tuple[Any, ...]]") -> T:
            run = _run_on(connection)
            with connection.transaction():
                if as_writer:
                    run("SELECT pg_advisory_xact_lock(?)", (_WRITERS_LOCK,))
                return work(run)

        return self._lend(inside)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _lend(self, work: Callable[["psycopg.Connection[tuple[Any, ...]]"], T]) -> T:
        """Give a connection to work with; once more with a new one if it turns out to be broken."""
        try:
            for fresh in (False, True):
                connection = self._take(fresh=fresh)
                try:
                    return work(connection)
                except self._psycopg.OperationalError:
                    if fresh or not connection.broken:
                        raise
                finally:
                    self._give(connection)
        except self._psycopg.Error as error:
            told = " ".join(str(error).split())
            raise StorageError(f"the cache in PostgreSQL could not be read or written: {told}.") from error
        raise AssertionError("the second round returns or raises")

    def _take(self, *, fresh: bool) -> "psycopg.Connection[tuple[Any, ...]]":
        if fresh:
            self.close()  # the others broke with the one that was tried
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = self._psycopg.connect(self._url, autocommit=True)
        self._prepare(_run_on(connection))
        return connection

    def _give(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < self._most_idle:
                self._idle.append(connection)
                return
        connection.close()


def _run_on(connection: "psycopg.Connection[tuple[Any, ...]]") -> Run:
    def run(statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.replace("?", "%s").encode(), parameters)
        return cursor.fetchall() if cursor.description is not None else []

    return run

"""Graphs on disk, beside the SQLite file of a cache.

A graph can be made again from the vectors in SQLite, so its file is only a matter of speed, and is believed only if its
SHA-256 is the one that SQLite holds. A kill while it is written leaves a file that no row names.
"""

import hashlib
import logging
import mmap
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.index import FORM, GraphIndex
from halve.techniques.inference.caching.semantic.sql import Run

TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS graphs (partition_key BLOB PRIMARY KEY, file TEXT NOT NULL, sha256 TEXT NOT NULL)"
)

_LOG = logging.getLogger("halve.techniques")


@final
class GraphFiles:
    """The graphs of one cache.

    Args:
        folder: Where they lie; made when the first is saved.
        dimension: Numbers in a vector.
        read: Runs one statement.
        transaction: Runs its argument inside a transaction that writes.
    """

    def __init__(
        self, folder: Path, *, dimension: int, read: Run, transaction: Callable[[Callable[[Run], object]], object]
    ) -> None:
        self._folder, self._dimension = folder, dimension
        self._read, self._transaction = read, transaction

    def restore(self, partition: bytes) -> GraphIndex | None:
        """Return the saved graph of a partition as a mapped file; None if there is none that can be believed."""
        rows = self._read("SELECT file, sha256 FROM graphs WHERE partition_key = ?", (partition,))
        if not rows or not str(rows[0][0]).endswith(f".{FORM}.usearch"):
            return None
        path, sha256 = self._folder / Path(str(rows[0][0])).name, str(rows[0][1])
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if hashlib.sha256(data).hexdigest() == sha256:
                return GraphIndex.mapped(data, dimension=self._dimension)
            _LOG.warning("%s is damaged and is made again", path)
        except (OSError, ValueError, InvalidParameterError) as error:
            _LOG.warning("%s cannot be read and is made again: %s", path, error)
        return None

    def save(self, partition: bytes, graph: GraphIndex) -> None:
        """Write the graph of a partition in place of the one before. A full disk costs the file, nothing else."""
        path = self._folder / f"{partition.hex()}-{secrets.token_hex(4)}.{FORM}.usearch"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            graph.save(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, RuntimeError) as error:
            _LOG.warning("%s could not be written: %s", path, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return
        statement = "INSERT OR REPLACE INTO graphs (partition_key, file, sha256) VALUES (?, ?, ?)"
        self._transaction(lambda run: run(statement, (partition, path.name, sha256)))
        for other in self._folder.glob(f"{partition.hex()}-*.usearch"):
            if other != path:
                with suppress(OSError):  # some systems keep a file that is mapped
                    other.unlink()

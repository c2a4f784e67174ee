"""Nearest neighbours among numbered vectors: exact over a matrix, approximate over a graph.

All vectors have length 1, so their inner product is the cosine of their angle. Numbers are those of entries.
"""

import mmap
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.inference.caching.semantic.store import FloatArray, IntArray

CONNECTIVITY = 16
EXPANSION_ADD = 96
EXPANSION_SEARCH = 48
"""Of the graph (Malkov and Yashunin 2016, arXiv:1603.09320): M, efConstruction and ef."""

METRIC = "ip"
"""1 minus the inner product: of vectors of length 1 the same as "cos", in three quarters of the time."""

STORAGE = "f16"
"""Cosines off by 2e-5; in int8 by 1e-2, and one in fourteen of the eight nearest is another."""

FORM = f"{METRIC}-{STORAGE}-{CONNECTIVITY}"
"""What a saved graph must have been made with to be read."""


class VectorIndex(Protocol):
    """Numbered vectors of one dimension. Not thread-safe: who owns it has a lock."""

    def __len__(self) -> int:
        """Vectors held."""
        ...

    def __contains__(self, entry: object) -> bool:
        """Whether this number is held."""
        ...

    def add(self, entries: IntArray, vectors: FloatArray) -> None:
        """Add vectors (n, d) of length 1 under numbers (n,) that are not held yet."""
        ...

    def remove(self, entries: Sequence[int]) -> None:
        """Remove numbers; those that are not held are passed over."""
        ...

    def search(self, vector: FloatArray, *, count: int) -> tuple[IntArray, FloatArray]:
        """Return at most `count` numbers and their cosines to a vector (d,) of length 1, by falling cosine."""
        ...


@final
class ExactIndex:
    """A matrix in memory, searched whole.

    Args:
        dimension: Numbers in a vector, >= 1.
    """

    def __init__(self, *, dimension: int) -> None:
        self._matrix = np.empty((0, dimension), dtype=np.float32)
        self._numbers = np.empty(0, dtype=np.int64)
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, entry: object) -> bool:
        return entry in self._rows

    @property
    def size_bytes(self) -> int:
        """Memory that the matrix takes."""
        return self._matrix.nbytes

    def add(self, entries: IntArray, vectors: FloatArray) -> None:
        """Add vectors; see `VectorIndex`."""
        start, stop = len(self._rows), len(self._rows) + len(entries)
        if stop > len(self._matrix):
            most = max(stop, 2 * len(self._matrix), 8)
            self._matrix = np.resize(self._matrix, (most, self._matrix.shape[1]))
            self._numbers = np.resize(self._numbers, most)
        self._matrix[start:stop] = vectors
        self._numbers[start:stop] = entries
        self._rows.update(zip(entries.tolist(), range(start, stop), strict=True))

    def remove(self, entries: Sequence[int]) -> None:
        """Remove numbers; the last row takes the place of each."""
        for entry in entries:
            row = self._rows.pop(entry, None)
            last = len(self._rows)
            if row is not None and row != last:
                self._matrix[row] = self._matrix[last]
                self._numbers[row] = self._numbers[last]
                self._rows[int(self._numbers[row])] = row

    def search(self, vector: FloatArray, *, count: int) -> tuple[IntArray, FloatArray]:
        """Return the nearest, exactly; equal cosines by rising number."""
        held = len(self._rows)
        cosines = self._matrix[:held] @ vector
        numbers = self._numbers[:held]
        if held > count:
            chosen = np.argpartition(-cosines, count - 1)[:count]
            cosines, numbers = cosines[chosen], numbers[chosen]
        order = np.lexsort((numbers, -cosines))
        return numbers[order], cosines[order]

    @property
    def numbers(self) -> IntArray:
        """All numbers held, (n,)."""
        return self._numbers[: len(self._rows)].copy()

    def oldest(self, count: int) -> tuple[IntArray, FloatArray]:
        """Return the numbers and vectors that were added first."""
        numbers = list(islice(self._rows, count))
        return np.asarray(numbers, dtype=np.int64), self._matrix[[self._rows[number] for number in numbers]]


@final
class GraphIndex:
    """A navigable small-world graph of usearch, in memory or read from a file that is mapped into memory.

    Args:
        dimension: Numbers in a vector, >= 1.

    Raises:
        MissingExtraError: If usearch is not installed.
    """

    def __init__(self, *, dimension: int) -> None:
        self._dimension = dimension
        self._index = _new(dimension)
        self._mapped: mmap.mmap | None = None

    @classmethod
    def mapped(cls, data: mmap.mmap, *, dimension: int) -> "GraphIndex":
        """Return the index that was saved in a file, without reading it into memory; it takes no changes.

        Args:
            data: The mapped file. Whoever calls has checked that it is what was saved: usearch believes any file.
            dimension: As it was saved.

        Raises:
            InvalidParameterError: If usearch cannot read it.
        """
        graph = cls(dimension=dimension)
        try:
            graph._index.view(data)
        except (RuntimeError, ValueError) as error:
            raise InvalidParameterError("the index", rule="a file of usearch", value=str(error)) from None
        graph._mapped = data
        return graph

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, entry: object) -> bool:
        return bool(self._index.contains(entry))

    @property
    def is_writable(self) -> bool:
        """Whether it lies in memory."""
        return self._mapped is None

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, reckoned: numbers, links and keys. A mapped file takes none of its own."""
        return len(self) * (2 * self._dimension + 8 * CONNECTIVITY + 32) if self.is_writable else 0

    @property
    def numbers(self) -> IntArray:
        """All numbers held, (n,)."""
        return np.asarray(self._index.keys, dtype=np.uint64).astype(np.int64)

    def make_writable(self) -> None:
        """Read a mapped index into memory, so that it takes changes."""
        if self._mapped is not None:
            index = _new(self._dimension)
            index.load(self._mapped)
            self._index, self._mapped = index, None

    def add(self, entries: IntArray, vectors: FloatArray) -> None:
        """Add vectors, on one thread; see `VectorIndex`."""
        self._index.add(entries.astype(np.uint64), vectors, threads=1)

    def remove(self, entries: Sequence[int]) -> None:
        """Remove numbers; later vectors take their places in the graph."""
        for entry in entries:
            self._index.remove(entry, threads=1)

    def search(self, vector: FloatArray, *, count: int) -> tuple[IntArray, FloatArray]:
        """Return numbers near a vector: nearly always the nearest."""
        if len(self) == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        found = self._index.search(vector, count, threads=1)
        cosines = np.clip(1.0 - np.asarray(found.distances, dtype=np.float32), -1.0, 1.0)
        return np.asarray(found.keys).astype(np.int64), cosines

    def save(self, path: Path) -> None:
        """Write the index to a file that is not there yet."""
        self._index.save(path)


def _new(dimension: int) -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise MissingExtraError("a large semantic cache", package="usearch", extra="cache") from None
    return Index(
        ndim=dimension,
        metric=METRIC,
        dtype=STORAGE,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )

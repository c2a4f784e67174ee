"""The index of one partition: what is new in a matrix, the rest in a graph.

A small partition is a matrix and nothing else: exact, and faster than a graph. A matrix that has grown too long moves
into the graph a few vectors at a time, as part of later additions and searches, so that no request waits for a graph to
be built. The same happens to what a restored graph does not know yet. A restored graph stays a mapped file as long as
few changes have come.
"""

from collections.abc import Sequence
from typing import final

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.index import ExactIndex, GraphIndex
from halve.techniques.inference.caching.semantic.store import FloatArray, IntArray

MOVED_PER_ADDITION = 4
"""Above 1, so that the matrix empties."""

MOVED_PER_SEARCH = 8
"""As long as the matrix is too long."""

_MOST_DEAD = 256
"""Numbers that a mapped graph may hold in vain: each look-up asks for as many more."""


@final
class LayeredIndex:
    """Numbered vectors of one partition. Not thread-safe: who owns it has a lock.

    Args:
        dimension: Numbers in a vector, >= 1.
        exact_entries: So many are searched exactly before a graph is made, >= 1.
        graph: What was restored.
    """

    def __init__(self, *, dimension: int, exact_entries: int, graph: GraphIndex | None = None) -> None:
        self._dimension, self._exact_entries = dimension, exact_entries
        self._recent = ExactIndex(dimension=dimension)
        self._graph = graph
        self._dead: set[int] = set()
        self._changes = 0

    def __len__(self) -> int:
        return len(self._recent) + (len(self._graph) - len(self._dead) if self._graph is not None else 0)

    def __contains__(self, entry: object) -> bool:
        return entry in self._recent or (self._graph is not None and entry not in self._dead and entry in self._graph)

    @property
    def graph(self) -> GraphIndex | None:
        """The graph, if there is one."""
        return self._graph

    @property
    def numbers(self) -> IntArray:
        """All numbers held, (n,)."""
        if self._graph is None:
            return self._recent.numbers
        alive = np.setdiff1d(self._graph.numbers, np.asarray(sorted(self._dead), dtype=np.int64))
        return np.concatenate([self._recent.numbers, alive])

    @property
    def unsaved(self) -> int:
        """Changes of the graph since it was restored or `saved`."""
        return self._changes

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return self._recent.size_bytes + (self._graph.size_bytes if self._graph is not None else 0)

    def add(self, entries: IntArray, vectors: FloatArray) -> None:
        """Add vectors (n, d) of length 1; numbers that are held already are passed over."""
        fresh = np.asarray([entry not in self for entry in entries.tolist()], dtype=bool)
        entries, vectors = entries[fresh], vectors[fresh]
        if len(entries) == 0:
            return
        grown = self._graph is not None and self._graph.is_writable
        if grown and len(self._recent) == 0:
            self._move(entries, vectors)
            return
        self._recent.add(entries, vectors)
        if grown or len(self._recent) > self._exact_entries:
            self.settle(MOVED_PER_ADDITION * len(entries))

    def restore(self, entries: IntArray, vectors: FloatArray) -> None:
        """Add vectors that are not held yet to the matrix, and move none."""
        self._recent.add(entries, vectors)

    def settle(self, count: int) -> None:
        """Move so many of the oldest vectors from the matrix into the graph."""
        entries, vectors = self._recent.oldest(count)
        if len(entries):
            self._move(entries, vectors)
            self._recent.remove(entries.tolist())

    def settle_all(self) -> None:
        """Make the graph that a partition of this size should have, whatever it takes."""
        if self._graph is not None or len(self._recent) > self._exact_entries:
            self.settle(len(self._recent))

    def remove(self, entries: Sequence[int]) -> None:
        """Remove numbers; those that are not held are passed over."""
        self._recent.remove(entries)
        if self._graph is None:
            return
        in_graph = [entry for entry in entries if entry not in self._dead and entry in self._graph]
        self._dead.update(in_graph)
        if self._graph.is_writable or len(self._dead) > _MOST_DEAD:
            self._own()
        self._changes += len(in_graph)

    def search(self, vector: FloatArray, *, count: int) -> tuple[IntArray, FloatArray]:
        """Return at most `count` numbers and their cosines to a vector (d,) of length 1, by falling cosine."""
        if len(self._recent) > self._exact_entries:
            self.settle(MOVED_PER_SEARCH)
        if self._graph is None or len(self._graph) == 0:
            return self._recent.search(vector, count=count)
        numbers, cosines = self._graph.search(vector, count=min(len(self._graph), count + len(self._dead)))
        if self._dead:
            alive = np.asarray([number not in self._dead for number in numbers.tolist()], dtype=bool)
            numbers, cosines = numbers[alive], cosines[alive]
        if len(self._recent):
            more, their = self._recent.search(vector, count=count)
            numbers, cosines = np.concatenate([numbers, more]), np.concatenate([cosines, their])
        order = np.lexsort((numbers, -cosines))[:count]
        return numbers[order], cosines[order]

    def saved(self) -> None:
        """Note that the graph is in its file."""
        self._changes = 0

    def _own(self) -> None:
        """Make the graph writable, and remove for good what is dead in it."""
        if self._graph is None:
            self._graph = GraphIndex(dimension=self._dimension)
        self._graph.make_writable()
        if self._dead:
            self._graph.remove(sorted(self._dead))
            self._dead.clear()

    def _move(self, entries: IntArray, vectors: FloatArray) -> None:
        self._own()
        if self._graph is not None:
            self._graph.add(entries, vectors)
            self._changes += len(entries)


def check_exact_entries(exact_entries: int) -> None:
    """Refuse a length of the matrix that is none.

    Raises:
        InvalidParameterError: If it is below 1.
    """
    if exact_entries < 1:
        raise InvalidParameterError("exact_entries", rule="at least 1", value=exact_entries)

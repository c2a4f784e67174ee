import builtins
import math
import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.inference.caching.semantic.index import ExactIndex, GraphIndex


def units(n, dimension, *, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(n, dimension, *, seed=0):
    """Vectors around a thirtieth as many centres, as questions lie."""
    centres = units(max(1, n // 30), dimension, seed=seed)
    noise = units(n, dimension, seed=seed + 1)
    vectors = np.repeat(centres, 31, axis=0)[:n] + 0.6 * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=[ExactIndex, GraphIndex])
def index(request):
    if request.param is GraphIndex:
        pytest.importorskip("usearch", reason="usearch is not installed")
    return request.param(dimension=3)


def test_by_hand(index):
    index.add(np.asarray([7, 5, 9]), np.asarray([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], dtype=np.float32))
    numbers, cosines = index.search(np.asarray([1, 0, 0], dtype=np.float32), count=2)
    assert numbers.tolist() == [7, 9]
    assert cosines == pytest.approx([1.0, 0.6], abs=1e-3)
    assert (len(index), 5 in index, 6 in index) == (3, True, False)
    index.remove([7, 6])
    assert (len(index), 7 in index) == (2, False)
    assert index.search(np.asarray([1, 0, 0], dtype=np.float32), count=5)[0].tolist() == [9, 5]


def test_an_empty_index_finds_nothing(index):
    numbers, cosines = index.search(np.asarray([1, 0, 0], dtype=np.float32), count=5)
    assert (numbers.tolist(), cosines.tolist()) == ([], [])
    index.remove([1])
    assert len(index) == 0


def test_what_is_removed_makes_room(index):
    for number in range(60):
        vector = [[math.cos(number / 40), math.sin(number / 40), 0]]
        index.add(np.asarray([number]), np.asarray(vector, dtype=np.float32))
        if number >= 10:
            index.remove([number - 10])
    assert len(index) == 10
    numbers, _ = index.search(np.asarray([1, 0, 0], dtype=np.float32), count=20)
    assert numbers.tolist() == list(range(50, 60))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=40), st.integers(1, 6), st.integers(0, 99))
def test_the_exact_index_is_a_sorted_list(steps, count, seed):
    vectors = units(12, 4, seed=seed)
    index, held = ExactIndex(dimension=4), []
    for adds, number in steps:
        if adds and number not in held:
            index.add(np.asarray([number]), vectors[number : number + 1])
            held.append(number)
        elif not adds:
            index.remove([number])
            held = [each for each in held if each != number]
    query = units(1, 4, seed=seed + 1)[0]
    cosines = vectors @ query
    expected = sorted(held, key=lambda number: (-cosines[number], number))[:count]
    numbers, found = index.search(query, count=count)
    assert numbers.tolist() == expected
    assert found == pytest.approx(cosines[expected], abs=1e-5)
    assert index.oldest(3)[0].tolist() == held[:3]
    assert index.oldest(3)[1] == pytest.approx(vectors[held[:3]])


def test_equal_cosines_come_by_rising_number():
    index = ExactIndex(dimension=2)
    index.add(np.asarray([5, 3, 8, 1]), np.tile(np.asarray([[1.0, 0.0]], dtype=np.float32), (4, 1)))
    assert index.search(np.asarray([0.6, 0.8], dtype=np.float32), count=4)[0].tolist() == [1, 3, 5, 8]


def test_the_graph_finds_what_is_near(tmp_path):
    """The nearest of 5,000, for 200 vectors near stored ones: recall of the first and of eight."""
    pytest.importorskip("usearch", reason="usearch is not installed")
    vectors = clustered(5_000, 64)
    exact, graph = ExactIndex(dimension=64), GraphIndex(dimension=64)
    for index in (exact, graph):
        index.add(np.arange(1, 5_001), vectors)
    queries = vectors[:200] + 0.3 * units(200, 64, seed=9)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    first = eight = 0
    for query in queries:
        truth, cosines = exact.search(query, count=8)
        found, near = graph.search(query, count=8)
        first += truth[0] in found
        eight += len(set(truth.tolist()) & set(found.tolist()))
        if truth[0] == found[0]:
            assert near[0] == pytest.approx(cosines[0], abs=2e-3)
    assert first >= 0.99 * 200
    assert eight >= 0.95 * 1_600


def test_a_saved_graph_is_mapped_and_can_be_made_writable(tmp_path):
    pytest.importorskip("usearch", reason="usearch is not installed")
    vectors, path = units(300, 8), tmp_path / "graph"
    graph = GraphIndex(dimension=8)
    graph.add(np.arange(300), vectors)
    graph.remove([17])
    graph.save(path)
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped = GraphIndex.mapped(data, dimension=8)
    path.unlink()
    assert (len(mapped), mapped.is_writable, mapped.size_bytes) == (299, False, 0)
    assert sorted(mapped.numbers.tolist()) == [number for number in range(300) if number != 17]
    before = [mapped.search(vector, count=3)[0].tolist() for vector in vectors[:50]]
    mapped.make_writable()
    assert mapped.is_writable
    assert mapped.size_bytes > 0
    assert [mapped.search(vector, count=3)[0].tolist() for vector in vectors[:50]] == before
    mapped.add(np.asarray([1_000]), vectors[17:18])
    assert mapped.search(vectors[17], count=1)[0].tolist() == [1_000]


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    pytest.importorskip("usearch", reason="usearch is not installed")
    path = tmp_path / "graph"
    path.write_bytes(b"no graph " * 100)
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with pytest.raises(InvalidParameterError, match=r"the index must be a file of usearch. Got"):
        GraphIndex.mapped(data, dimension=8)


def test_a_missing_usearch_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("usearch"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"a large semantic cache needs usearch: pip install 'halve\[cache\]'"):
        GraphIndex(dimension=2)

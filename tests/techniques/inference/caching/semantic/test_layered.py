import mmap

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.index import GraphIndex
from halve.techniques.inference.caching.semantic.layered import LayeredIndex, check_exact_entries

pytest.importorskip("usearch", reason="usearch is not installed")

DIMENSION = 16


def units(n, *, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


VECTORS = units(600)


def add(index, *numbers):
    index.add(np.asarray(numbers), VECTORS[list(numbers)])


def finds_itself(index, number):
    found, cosines = index.search(VECTORS[number], count=1)
    return found.tolist() == [number] and cosines[0] > 0.99


def mapped(tmp_path, numbers):
    graph = GraphIndex(dimension=DIMENSION)
    graph.add(np.asarray(numbers), VECTORS[list(numbers)])
    graph.save(tmp_path / "graph")
    with (tmp_path / "graph").open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return GraphIndex.mapped(data, dimension=DIMENSION)


def test_a_small_partition_has_no_graph():
    index = LayeredIndex(dimension=DIMENSION, exact_entries=50)
    for number in range(50):
        add(index, number)
    assert (len(index), index.graph, index.unsaved) == (50, None, 0)


def test_a_growing_partition_moves_into_its_graph_step_by_step():
    index = LayeredIndex(dimension=DIMENSION, exact_entries=50)
    sizes = []
    for number in range(100):
        add(index, number)
        sizes.append(len(index.graph) if index.graph is not None else 0)
        assert len(index) == number + 1
        assert finds_itself(index, number)
    steps = np.diff([0, *sizes])
    assert steps[:50].max() == 0
    assert steps.max() == 4
    assert sizes[-1] == 100
    assert index.unsaved == 100
    assert all(finds_itself(index, number) for number in range(100))


def test_a_number_is_added_once():
    index = LayeredIndex(dimension=DIMENSION, exact_entries=5)
    for _ in range(2):
        add(index, *range(20))
    assert len(index) == 20
    assert all(number in index for number in range(20))
    assert 20 not in index


@pytest.mark.parametrize("exact_entries", [5, 40, 1_000])
def test_it_holds_what_a_set_holds(exact_entries):
    rng = np.random.default_rng(3)
    index, held = LayeredIndex(dimension=DIMENSION, exact_entries=exact_entries), set()
    for number in range(400):
        add(index, number)
        held.add(number)
        if rng.random() < 0.7:
            gone = int(rng.choice(sorted(held)))
            index.remove([gone, gone, 9_999])
            held.discard(gone)
    assert len(index) == len(held)
    assert {number for number in range(600) if number in index} == held
    assert sorted(index.numbers.tolist()) == sorted(held)
    found = [finds_itself(index, number) for number in sorted(held)]
    assert np.mean(found) >= 0.98
    numbers, cosines = index.search(VECTORS[0], count=1_000)
    assert set(numbers.tolist()) <= held
    assert len(numbers) >= 0.9 * len(held)
    assert np.all(np.diff(cosines) <= 0)


def test_a_restored_graph_stays_mapped_while_it_can(tmp_path):
    index = LayeredIndex(dimension=DIMENSION, exact_entries=30, graph=mapped(tmp_path, range(200)))
    index.remove([3])
    for number in range(200, 230):
        add(index, number)
    assert not index.graph.is_writable
    assert (len(index), 3 in index, 4 in index) == (229, False, True)
    assert sorted(index.numbers.tolist()) == [number for number in range(230) if number != 3]
    assert not finds_itself(index, 3)
    assert all(finds_itself(index, number) for number in (4, 199, 200, 229))
    add(index, 230)
    assert index.graph.is_writable
    assert (len(index), 3 in index) == (230, False)
    assert all(finds_itself(index, number) for number in (4, 199, 200, 230))


def test_a_mapped_graph_with_many_dead_is_made_writable(tmp_path):
    index = LayeredIndex(dimension=DIMENSION, exact_entries=30, graph=mapped(tmp_path, range(500)))
    index.remove(list(range(256)))
    assert not index.graph.is_writable
    index.remove([300])
    assert index.graph.is_writable
    assert (len(index), len(index.graph)) == (243, 243)


def test_searches_move_what_was_restored_in_bulk():
    index = LayeredIndex(dimension=DIMENSION, exact_entries=100)
    index.restore(np.arange(150), VECTORS[:150])
    assert index.graph is None
    for _ in range(20):
        assert finds_itself(index, 7)
    assert len(index.graph) == 56  # seven times eight, until a hundred are left
    index.settle_all()
    assert (len(index.graph), len(index)) == (150, 150)
    index.saved()
    assert index.unsaved == 0


def test_settling_leaves_a_small_partition_alone():
    index = LayeredIndex(dimension=DIMENSION, exact_entries=100)
    add(index, *range(100))
    index.settle_all()
    assert index.graph is None
    assert index.size_bytes >= 100 * DIMENSION * 4


def test_a_bad_length_is_named():
    check_exact_entries(1)
    with pytest.raises(InvalidParameterError, match=r"exact_entries must be at least 1. Got 0"):
        check_exact_entries(0)

import numpy as np
import pytest

from halve.techniques.inference.caching.semantic.loaded import LoadedPartitions, decoded, encoded
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore

DIMENSION = 8


def units(n, *, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


VECTORS = units(300)


class NoFiles:
    """Remembers what was saved, and restores nothing."""

    def __init__(self):
        self.saved = []

    def restore(self, partition):
        return None

    def save(self, partition, graph):
        self.saved.append((partition, len(graph)))


@pytest.fixture
def store(tmp_path):
    with SQLiteStore(tmp_path / "cache.sqlite", encoder="e", dimension=DIMENSION) as store:
        yield store


def loaded_from(store, *, exact_entries=1_000, memory_bytes=2**30, save_every=10_000):
    files = NoFiles()
    loaded = LoadedPartitions(
        read=store._read,
        files=files,
        dimension=DIMENSION,
        exact_entries=exact_entries,
        memory_bytes=memory_bytes,
        save_every=save_every,
    )
    return loaded, files


def put(store, entry_of, numbers, *, partition="p"):
    return [store.put(entry_of(f"{n}", partition=partition, vector=VECTORS[n])).entry for n in numbers]


def test_it_takes_in_what_is_committed(store, entry_of, partition_of):
    loaded, _ = loaded_from(store)
    (first,) = put(store, entry_of, [0])
    assert loaded.search(partition_of("p"), VECTORS[0], count=5)[0] == [first]
    more = put(store, entry_of, range(1, 10))
    put(store, entry_of, range(5), partition="q")
    numbers, cosines = loaded.search(partition_of("p"), VECTORS[4], count=5)
    assert numbers[0] == more[3]
    assert cosines[0] == pytest.approx(1.0, abs=1e-3)
    assert len(loaded.search(partition_of("p"), VECTORS[4], count=50)[0]) == 10
    assert len(loaded.search(partition_of("q"), VECTORS[4], count=50)[0]) == 5


def test_what_is_dropped_is_not_found(store, entry_of, partition_of):
    loaded, _ = loaded_from(store)
    numbers = put(store, entry_of, range(5))
    loaded.search(partition_of("p"), VECTORS[0], count=1)
    loaded.drop([(numbers[0], partition_of("p")), (numbers[1], partition_of("another"))])
    assert sorted(loaded.search(partition_of("p"), VECTORS[0], count=9)[0]) == numbers[1:]


def test_when_memory_is_short_what_was_not_used_is_read_again(store, entry_of, partition_of):
    loaded, _ = loaded_from(store, memory_bytes=3_000)
    for word in ("p", "q", "r"):
        put(store, entry_of, range(40), partition=word)
    for _ in range(2):
        for word in ("p", "q", "r"):
            found = loaded.search(partition_of(word), VECTORS[7], count=1)
            assert found[1] == pytest.approx([1.0], abs=1e-3)
            assert len(loaded._indexes) <= 2
            assert loaded._total_bytes == sum(loaded._sizes.values()) <= 3_000


@pytest.mark.parametrize("exact_entries", [1_000, 20])
def test_what_others_removed_does_not_pile_up(store, entry_of, partition_of, exact_entries):
    """A process that only looks up, beside one that puts and evicts: its index stays within bounds."""
    if exact_entries == 20:
        pytest.importorskip("usearch", reason="usearch is not installed")
    loaded, _ = loaded_from(store, exact_entries=exact_entries)
    loaded.search(partition_of("p"), VECTORS[0], count=1)
    for start in range(0, 3_000, 100):
        tags = frozenset({f"{start // 100}"})
        store.put_many([entry_of(f"{n}", vector=VECTORS[n % 300], tags=tags) for n in range(start, start + 100)])
        store.invalidate(f"{start // 100 - 1}")
        loaded.catch_up()
        assert len(loaded._indexes[partition_of("p")]) <= 1_200
    assert len(store) == 100


def test_a_graph_is_saved_when_a_quarter_has_changed(store, entry_of, partition_of):
    pytest.importorskip("usearch", reason="usearch is not installed")
    loaded, files = loaded_from(store, exact_entries=10, save_every=20)
    for number in range(120):
        put(store, entry_of, [number])
        loaded.search(partition_of("p"), VECTORS[number], count=1)
    sizes = [size for _, size in files.saved]
    assert sizes == sorted(sizes)
    assert 3 <= len(sizes) <= 7
    loaded.save()
    assert files.saved[-1] == (partition_of("p"), 120)
    count = len(files.saved)
    loaded.save()
    assert len(files.saved) == count


def test_settling_makes_the_whole_graph(store, entry_of, partition_of):
    pytest.importorskip("usearch", reason="usearch is not installed")
    put(store, entry_of, range(100))
    loaded, files = loaded_from(store, exact_entries=10)
    loaded.settle(partition_of("p"))
    assert files.saved == [(partition_of("p"), 100)]


def test_vectors_keep_their_direction_in_sixteen_bits():
    stored = [encoded(vector) for vector in VECTORS]
    assert {len(blob) for blob in stored} == {2 * DIMENSION}
    back = decoded(stored, DIMENSION)
    assert back.dtype == np.float32
    assert np.sum(back * VECTORS, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.linalg.norm(back, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert decoded([], DIMENSION).shape == (0, DIMENSION)

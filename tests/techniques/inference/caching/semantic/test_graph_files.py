import logging

import numpy as np
import pytest

from halve.techniques.inference.caching.semantic import graph_files
from halve.techniques.inference.caching.semantic.graph_files import GraphFiles
from halve.techniques.inference.caching.semantic.index import GraphIndex
from halve.techniques.inference.caching.semantic.sqlite_file import SQLiteFile

pytest.importorskip("usearch", reason="usearch is not installed")

PARTITION, OTHER = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
def database(tmp_path):
    database = SQLiteFile(tmp_path / "cache.sqlite")
    database.transaction(lambda run: run(graph_files.TABLE, ()))
    yield database
    database.close()


@pytest.fixture
def files(tmp_path, database):
    return GraphFiles(tmp_path / "graphs", dimension=8, read=database.read, transaction=database.transaction)


def graph_of(*numbers):
    graph = GraphIndex(dimension=8)
    vectors = np.random.default_rng(0).standard_normal((len(numbers), 8)).astype(np.float32)
    graph.add(np.asarray(numbers), vectors)
    return graph


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "graphs").iterdir())


def test_a_graph_is_saved_and_restored(tmp_path, files):
    assert files.restore(PARTITION) is None
    files.save(PARTITION, graph_of(1, 2, 3))
    restored = files.restore(PARTITION)
    assert sorted(restored.numbers.tolist()) == [1, 2, 3]
    assert not restored.is_writable
    assert files.restore(OTHER) is None


def test_the_file_before_is_removed_and_other_partitions_are_left_alone(tmp_path, files):
    files.save(OTHER, graph_of(9))
    other = names(tmp_path)
    for numbers in ((1,), (1, 2), (1, 2, 3)):
        files.save(PARTITION, graph_of(*numbers))
    assert len(names(tmp_path)) == 2
    assert set(other) < set(names(tmp_path))
    assert len(files.restore(PARTITION)) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_file_is_not_believed(tmp_path, files, damage, caplog):
    files.save(PARTITION, graph_of(*range(200)))
    (path,) = (tmp_path / "graphs").iterdir()
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, logger="halve.techniques"):
        assert files.restore(PARTITION) is None
    assert "is made again" in caplog.text


def test_a_file_that_no_row_names_is_not_believed(tmp_path, files):
    """As a kill between the file and its row leaves it."""
    files.save(PARTITION, graph_of(1))
    (path,) = (tmp_path / "graphs").iterdir()
    newer = path.with_name(f"{PARTITION.hex()}-00000000.usearch")
    graph_of(1, 2).save(newer)
    assert len(files.restore(PARTITION)) == 1
    files.save(PARTITION, graph_of(1, 2, 3))
    assert len(names(tmp_path)) == 1


def test_a_graph_of_another_form_is_not_read(tmp_path, files, monkeypatch):
    files.save(PARTITION, graph_of(1, 2, 3))
    monkeypatch.setattr(graph_files, "FORM", "l2-f64-99")
    assert files.restore(PARTITION) is None
    files.save(PARTITION, graph_of(1, 2, 3))
    assert len(files.restore(PARTITION)) == 3
    assert len(names(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_costs_only_speed(tmp_path, files, caplog):
    (tmp_path / "graphs").write_text("a file is in the way")
    with caplog.at_level(logging.WARNING, logger="halve.techniques"):
        files.save(PARTITION, graph_of(1))
    assert "could not be written" in caplog.text
    assert files.restore(PARTITION) is None

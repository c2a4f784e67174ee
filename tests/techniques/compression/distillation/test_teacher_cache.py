import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation import TeacherCache
from halve.techniques.compression.distillation.targets import compressed


def answers(rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    return log_softmax(3 * rng.standard_normal((rows, classes)), axis=1).astype(np.float32)


class Teacher:
    """Answers from a table and notes what it was asked."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def __call__(self, start, stop):
        self.asked.append((start, stop))
        return self.table[start:stop]


def opened(folder, teacher, /, **changes):
    rows, classes = teacher.table.shape
    settings = {"teacher": "t", "inputs_sha256": "i", "rows": rows, "classes": classes, "shard_rows": 100}
    return TeacherCache.open(folder, answer=teacher, **{**settings, **changes})


def test_it_is_asked_once_and_gives_what_it_was_given(tmp_path):
    table = answers(250, 400)
    teacher, done = Teacher(table), []
    cache = opened(tmp_path, teacher, progress=done.append)
    assert teacher.asked == [(0, 100), (100, 200), (200, 250)]
    assert done == [100, 200, 250]
    assert (cache.rows, cache.classes, len(cache)) == (250, 400, 250)
    expected = compressed(table, k=cache.k)
    np.testing.assert_array_equal(cache.targets().indices, expected.indices)
    np.testing.assert_array_equal(cache.targets().tail, expected.tail)
    picked = np.array([249, 0, 120])
    np.testing.assert_array_equal(cache.targets(picked).log_probabilities, expected.log_probabilities[picked])
    assert cache.log_probabilities().shape == (250, 400)
    again = Teacher(table)
    second = opened(tmp_path, again)
    assert again.asked == []
    assert second.seconds == pytest.approx(cache.seconds, abs=1e-4)
    np.testing.assert_array_equal(second.log_probabilities(), cache.log_probabilities())


def test_few_classes_are_kept_in_full(tmp_path):
    table = answers(50, 10)
    cache = opened(tmp_path, Teacher(table))
    assert cache.k == 10
    assert cache.targets().indices is None
    np.testing.assert_allclose(cache.log_probabilities(), table, atol=8e-3)


def test_the_number_of_classes_can_be_learnt_and_is_then_known(tmp_path):
    teacher = Teacher(answers(20, 7))
    assert opened(tmp_path, teacher, classes=None).classes == 7
    assert teacher.asked[0] == (0, 1)
    again = Teacher(teacher.table)
    assert opened(tmp_path, again, classes=None).classes == 7
    assert again.asked == []


def test_only_missing_short_and_damaged_shards_are_asked_for_again(tmp_path):
    table = answers(500, 300)
    cache = opened(tmp_path, Teacher(table))
    shards = sorted(cache.folder.glob("shard-*"))
    assert len(shards) == 5
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-100])
    damaged = bytearray(shards[4].read_bytes())
    damaged[-1] ^= 1
    shards[4].write_bytes(bytes(damaged))
    teacher = Teacher(table)
    again = opened(tmp_path, teacher)
    assert teacher.asked == [(100, 200), (200, 300), (400, 500)]
    np.testing.assert_array_equal(again.log_probabilities(), cache.log_probabilities())


def test_another_teacher_other_inputs_or_another_budget_have_another_folder(tmp_path):
    table = answers(120, 300)
    folders = {
        opened(tmp_path, Teacher(table), **change).folder
        for change in ({}, {"teacher": "u"}, {"inputs_sha256": "j"}, {"bytes_per_example": 100}, {"shard_rows": 50})
    }
    assert len(folders) == 5
    document = json.loads((min(folders) / "cache.json").read_text())
    assert document["schema"] == "halve.teacher-cache/1"


@settings(max_examples=15)
@given(classes=st.integers(2, 2_000), budget=st.integers(60, 400))
def test_an_example_takes_no_more_than_its_budget_on_disk(tmp_path_factory, classes, budget):
    cache = opened(tmp_path_factory.mktemp("cache"), Teacher(answers(400, classes)), bytes_per_example=budget)
    assert cache.bytes_per_example <= budget
    assert cache.k == classes or cache.bytes_per_example > 0.7 * budget - 20


@pytest.mark.parametrize("classes", [49_152, 200_000])
def test_the_largest_vocabularies_fit_too(tmp_path, classes):
    row = answers(1, classes)
    cache = TeacherCache.open(
        tmp_path,
        teacher="t",
        inputs_sha256="i",
        rows=200,
        classes=classes,
        answer=lambda start, stop: np.broadcast_to(row, (stop - start, classes)),
    )
    assert cache.bytes_per_example <= 300
    assert cache.k >= 45
    np.testing.assert_allclose(np.exp(cache.targets().log_masses(2.0)).sum(axis=1), 1, atol=1e-5)


SLOW_TEACHER = """
import sys, time
from pathlib import Path
import numpy as np
from halve.techniques.compression.distillation import TeacherCache
table = np.load(sys.argv[2])
def answer(start, stop):
    if start:
        time.sleep(0.3)
    return table[start:stop]
TeacherCache.open(Path(sys.argv[1]), teacher="t", inputs_sha256="i", rows=len(table), classes=table.shape[1],
                  answer=answer, shard_rows=100, progress=lambda rows: print(rows, flush=True))
"""


def test_after_kill_9_only_the_missing_shards_are_asked_for(tmp_path):
    table = answers(1000, 200)
    np.save(tmp_path / "table.npy", table)
    folder = tmp_path / "caches"
    command = [sys.executable, "-c", SLOW_TEACHER, str(folder), str(tmp_path / "table.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        done = [process.stdout.readline() for _ in range(3)]
        os.kill(process.pid, signal.SIGKILL)
    assert done == ["100\n", "200\n", "300\n"]
    kept = len(list(folder.rglob("shard-*.safetensors")))
    assert 3 <= kept < 10
    teacher = Teacher(table)
    cache = opened(folder, teacher)
    assert teacher.asked == [(start, start + 100) for start in range(100 * kept, 1000, 100)]
    fresh = opened(tmp_path / "fresh", Teacher(table))
    np.testing.assert_array_equal(cache.log_probabilities(), fresh.log_probabilities())


def test_seconds_are_remembered_over_resumes(tmp_path):
    teacher = Teacher(answers(300, 20))

    def slow(start, stop):
        time.sleep(0.02)
        return teacher(start, stop)

    slow.table = teacher.table
    first = opened(tmp_path, slow)
    (first.folder / "shard-00001.safetensors").unlink()
    second = opened(tmp_path, slow)
    assert second.seconds > 0
    assert json.loads((second.folder / "cache.json").read_text())["seconds"] == pytest.approx(second.seconds, abs=1e-3)


def test_a_teacher_that_answers_nonsense_is_named():
    with pytest.raises(ModelError, match=r"the teacher must answer with shape \(5, 4\)\. Got \(5, 3\)"):
        opened(Path("unused"), Teacher(answers(5, 3)), classes=4)
    broken = answers(5, 4)
    broken[2, 1] = np.nan
    with pytest.raises(ModelError, match=r"probabilities of the teacher must sum to 1\. Got nan in row 2"):
        opened(Path("unused"), Teacher(broken))
    with pytest.raises(ModelError, match=r"must sum to 1\. Got 4 in row 0"):
        opened(Path("unused"), Teacher(np.zeros((5, 4), np.float32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, r"rows must be at least 1\. Got 0"),
        ({"shard_rows": 0}, r"shard_rows must be at least 1\. Got 0"),
        ({"bytes_per_example": 31}, r"bytes_per_example must be at least 32\. Got 31"),
        ({"classes": 1}, r"classes must be at least 2\. Got 1"),
    ],
)
def test_bad_numbers_are_refused(tmp_path, change, message):
    with pytest.raises(InvalidParameterError, match=message):
        opened(tmp_path, Teacher(answers(5, 4)), **change)

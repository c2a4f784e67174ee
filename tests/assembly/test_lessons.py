import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.assembly.lessons import Judge, Promise, in_parts, read_training, workspace_beside
from halve.chains import Lesson
from halve.core import Model
from halve.core.hashing import payload_hash
from halve.core.progress import Silent
from halve.engines.torch import answerer_of
from halve.errors import ConfigError, InvalidParameterError, StorageError, UserError, WorkloadError
from halve.gate import drop_upper_bound
from halve.testing.tiny_service import linear, teacher, training_points
from halve.workload import training_set

INPUTS, CLASSES = training_points()


def text_set(n, references=None):
    return training_set([f"text {number}" for number in range(n)], references)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_equal_payloads_are_never_in_two_parts_and_none_is_lost(numbers, share):
    training = training_set([f"text {number}" for number in numbers], numbers)
    try:
        parts = in_parts(training, share=share)
    except InvalidParameterError as error:
        assert "must hold one" in str(error)  # noqa: PT017 - few texts may leave a part empty
        return
    learn, stop, measure = (set(part.payloads) for part in (parts.learn, parts.stop, parts.measure))
    assert not learn & stop
    assert not learn & measure
    assert not stop & measure
    together = [*parts.learn.payloads, *parts.stop.payloads, *parts.measure.payloads]
    assert Counter(together) == Counter(training.payloads)
    for part in (parts.learn, parts.stop, parts.measure):
        assert [f"text {number}" for number in part.references] == list(part.payloads), "labels stay with payloads"
        assert part.sha256 == payload_hash(part.payloads)


def test_parts_do_not_depend_on_the_order_and_are_about_as_large_as_asked():
    training = text_set(4000)
    parts = in_parts(training, share=0.2)
    backwards = in_parts(training_set(list(reversed(training.payloads))), share=0.2)
    for name in ("learn", "stop", "measure"):
        assert set(getattr(parts, name).payloads) == set(getattr(backwards, name).payloads)
    # Binomial: 3200 and twice 400 expected, standard deviations 25 and 19; five of them.
    assert abs(len(parts.learn) - 3200) < 125
    assert max(abs(len(parts.stop) - 400), abs(len(parts.measure) - 400)) < 95
    more = in_parts(training, share=0.4)
    assert set(more.learn.payloads) < set(parts.learn.payloads), "a larger share takes more of the same"


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(InvalidParameterError, match=r"hold_out must be in \(0, 1\)\. Got"):
        in_parts(text_set(100), share=share)


def test_every_part_holds_something():
    with pytest.raises(InvalidParameterError, match="hold_out must be large enough for 3 payloads"):
        in_parts(text_set(3), share=0.01)


@pytest.mark.parametrize(
    ("drop", "confidence", "sentence"),
    [
        (0.0, 0.95, r"quality_drop_at_most must be in \(0, 1\)\. Got 0\.0"),
        (1.0, 0.95, "quality_drop_at_most"),
        (0.01, 0.5, r"confidence must be in \(0\.5, 1\)\. Got 0\.5"),
        (0.01, 1.0, "confidence"),
    ],
)
def test_a_promise_has_ranges(drop, confidence, sentence):
    with pytest.raises(InvalidParameterError, match=sentence):
        Promise(drop_at_most=drop, confidence=confidence)


def test_data_come_out_of_files_functions_and_hands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=INPUTS[:6], y=CLASSES[:6])
    labelled = read_training("data.npz", payload="x", label="y")
    assert labelled.references.tolist() == CLASSES[:6].tolist()
    bare = read_training(tmp_path / "data.npz", payload="x", label=None)
    assert set(bare.references) == {-1}
    by_hand = read_training((list(INPUTS[:6]), list(CLASSES[:6])), payload="payload", label=None)
    assert bare.sha256 == labelled.sha256 == by_hand.sha256 == payload_hash(list(INPUTS[:6]))
    np.testing.assert_array_equal(by_hand.references, labelled.references)
    named = read_training((["a", "b"], ["no", "yes"]), payload="payload", label=None, labels=("no", "yes"))
    assert named.references.tolist() == [0, 1]


def test_entries_give_data_and_changes(tmp_path, monkeypatch):
    (tmp_path / "user_lessons.py").write_text(
        "def data():\n    return ['up', 'down'], [1, None]\ndef path():\n    return 'data.jsonl'\n"
        "def shake(batch):\n    return batch\ndef broken():\n    raise KeyError('k')\n"
    )
    (tmp_path / "data.jsonl").write_text('{"text": "far"}\n{"text": "near"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    training = read_training("user_lessons:data", payload="payload", label=None, augment="user_lessons:shake")
    assert training.payloads == ["up", "down"]
    assert training.references.tolist() == [1, -1]
    assert training.augment({"input": 7}) == {"input": 7}
    assert read_training("user_lessons:path", payload="text", label=None).payloads == ["far", "near"]
    shake = lambda batch: batch  # noqa: E731 - any function will do
    assert read_training(["a", "b"], payload="payload", label=None, augment=shake).augment is shake
    with pytest.raises(UserError, match="data: user_lessons:broken raised KeyError"):
        read_training("user_lessons:broken", payload="payload", label=None)
    with pytest.raises(ConfigError, match="augment"):
        read_training(["a", "b"], payload="payload", label=None, augment="user_lessons:absent")
    with pytest.raises(WorkloadError, match=r"data\.jsonl must have a column 'x'|line 1 of data\.jsonl"):
        read_training("data.jsonl", payload="x", label=None)


@pytest.fixture
def lesson_over(tmp_path):
    """Return what makes a lesson of the tiny teacher over data."""

    def make(training):
        model = Model(name="teacher", engine="torch", entry="mine:teacher")
        return Lesson(
            teacher=model,
            load=lambda: answerer_of(teacher(), model, folder=tmp_path),
            training=training,
            caches=tmp_path / "teachers",
            workspace=lambda name: tmp_path / name,
            seed=0,
            progress=Silent(),
        )

    return make


def answers_of(module, inputs):
    import torch

    with torch.inference_mode():
        return module(torch.from_numpy(inputs)).numpy()


def test_labels_judge_where_there_are_some_and_only_there(lesson_over):
    references = [int(label) if row % 3 else None for row, label in enumerate(CLASSES[:90])]
    judge = Judge.of(lesson_over(training_set(list(INPUTS[:90]), references)))
    rows = np.array([row for row in range(90) if row % 3])
    assert judge.judged_by == "labels"
    np.testing.assert_array_equal(judge.rows, rows)
    told = answers_of(teacher(), INPUTS[:90]).argmax(1)
    np.testing.assert_array_equal(judge.teacher, (told == CLASSES[:90])[rows].astype(float))
    guesses = answers_of(linear(), INPUTS[:90])
    np.testing.assert_array_equal(judge.scores(guesses), (guesses.argmax(1) == CLASSES[:90])[rows].astype(float))


def test_without_labels_the_teacher_is_right(lesson_over):
    judge = Judge.of(lesson_over(training_set(list(INPUTS[:90]))))
    assert judge.judged_by == "the teacher's answers"
    assert judge.teacher.tolist() == [1.0] * 90
    assert judge.scores(answers_of(teacher(), INPUTS[:90])).tolist() == [1.0] * 90


def test_a_judge_compares_and_bounds(lesson_over, tmp_path):
    training = training_set(list(INPUTS[:300]), list(CLASSES[:300]))
    judge, promise = Judge.of(lesson_over(training)), Promise(drop_at_most=0.03, confidence=0.95)
    guesses = answers_of(linear(), INPUTS[:300])
    answerer = answerer_of(linear(), Model(name="linear", engine="torch", entry="mine:linear"), folder=tmp_path)
    drop = judge.compared(answerer, training, promise=promise)
    assert drop.n == 300
    assert drop.baseline == pytest.approx(judge.teacher.mean())
    assert drop.candidate == pytest.approx(judge.scores(guesses).mean())
    assert drop.upper_bound > drop.baseline - drop.candidate
    held = judge.held_out(training, promise=promise)
    assert held.target == 0.03
    scores = held.scores(guesses)
    assert held.upper_bound(scores) == drop_upper_bound(judge.teacher, scores, confidence=0.95)
    assert held.payloads is training.payloads


def test_a_workspace_is_there_once_it_is_asked_for_and_found_again(tmp_path):
    give = workspace_beside(tmp_path / "out", {"seed": 0})
    assert list(tmp_path.iterdir()) == []
    (give("training") / "state").write_text("half way")
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]
    assert json.loads((give("") / "question.json").read_text()) == {"seed": 0}
    again = workspace_beside(tmp_path / "out", {"seed": 0})
    assert (again("training") / "state").read_text() == "half way"


def test_another_question_starts_anew(tmp_path):
    (workspace_beside(tmp_path / "out", {"seed": 0})("training") / "state").write_text("half way")
    other = workspace_beside(tmp_path / "out", {"seed": 1})
    assert list(tmp_path.iterdir()) == []
    assert list(other("training").iterdir()) == []
    (other("") / "question.json").unlink()
    (other("training") / "state").write_text("without a question")
    (tmp_path / ".out.work" / "question.json").unlink()
    workspace_beside(tmp_path / "out", {"seed": 1})
    assert list(tmp_path.iterdir()) == [], "a folder that does not say what it is of"


def test_a_workspace_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"\.out\.work"):
        workspace_beside(tmp_path / "file" / "out", {"seed": 0})("training")

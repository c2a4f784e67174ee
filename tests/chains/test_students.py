from dataclasses import replace

import numpy as np
import pytest
import torch

from halve.chains import HeldOut, Student, read_record, searched, student_recipe, taught, write_student
from halve.core import Model
from halve.engines import engine
from halve.errors import ModelError
from halve.measure.artifacts import adopt_files
from halve.testing.tiny_service import teacher, training_points, untrained

INPUTS, CLASSES = training_points()
UNSEEN = INPUTS[1000:1200]


def reader(payloads):
    return {"input": np.stack(payloads)}


def quick(lesson):
    return replace(student_recipe(lesson), learning_rate=0.02)


def student():
    return Student(module=untrained(), read=reader)


def agreement(module):
    with torch.inference_mode():
        return float(
            (module(torch.from_numpy(UNSEEN)).argmax(1) == teacher()(torch.from_numpy(UNSEEN)).argmax(1)).float().mean()
        )


def held_out(*, target):
    told = teacher()(torch.from_numpy(UNSEEN)).argmax(1).numpy()
    return HeldOut(
        payloads=list(UNSEEN),
        scores=lambda logits: (logits.argmax(axis=1) == told).astype(np.float64),
        upper_bound=lambda scores: 1.0 - float(scores.mean()),
        target=target,
    )


def test_a_student_learns_what_its_teacher_answers_without_a_label(make_lesson, tmp_path):
    lesson, trained = make_lesson(600, epochs=15), student()
    before = agreement(trained.module)
    (tmp_path / "out").mkdir()
    done = write_student(tmp_path / "out", lesson=lesson, student=trained, recipe=quick(lesson), name="student")
    assert agreement(trained.module) > max(0.85, before + 0.2)
    assert (len(done.history), done.stopped_early, done.gap_upper_bound) == (15, False, None)

    files = adopt_files(tmp_path / "out", relative_to=tmp_path / "out")
    model = Model(name="student", engine="onnxruntime", files=files)
    answerer = engine("onnxruntime").load(model, threads=1, folder=tmp_path / "out")
    answers = answerer.answer(list(UNSEEN)).answers
    answerer.close()
    with torch.inference_mode():
        np.testing.assert_array_equal(answers, trained.module(torch.from_numpy(UNSEEN)).argmax(1).numpy())

    record = read_record(tmp_path / "out")
    assert (record.chain, record.parent, record.seed) == ("distillation", "teacher", 0)
    assert record.parent_fingerprint == lesson.teacher.fingerprint
    assert record.training_sha256 == lesson.training.sha256
    assert record.n_training == 600
    (step,) = record.steps
    assert step.parameters["epochs"] == 15
    assert step.parameters["teacher"] == "teacher"
    assert step.figures["seconds"] > 0
    assert 0 < step.figures["teacher_cache_bytes_per_example"] <= 300


def test_two_students_ask_the_teacher_once(make_lesson, tmp_path):
    lesson = make_lesson(60, epochs=1)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_student(tmp_path / name, lesson=lesson, student=student(), recipe=student_recipe(lesson), name=name)
    assert lesson.load.opened == 1
    one, two = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two, "same seed, same data, same weights"


def test_training_stops_as_soon_as_the_bound_is_low_enough(make_lesson, tmp_path):
    lesson = replace(make_lesson(600, epochs=40), held_out=held_out(target=0.2))
    done = write_student(tmp_path, lesson=lesson, student=student(), recipe=quick(lesson), name="student")
    assert done.stopped_early
    assert done.gap_upper_bound <= 0.2
    (step,) = read_record(tmp_path).steps
    assert step.parameters["stopped_early"] is True
    assert step.parameters["best_epoch"] == len(done.history) - 1
    assert step.figures["gap_upper_bound"] == done.gap_upper_bound


def test_a_finished_training_is_not_done_again(make_lesson):
    lesson = make_lesson(60, epochs=2)
    seen = []
    lesson = replace(lesson, training=replace(lesson.training, augment=lambda batch: seen.append(1) or batch))
    recipe, modules = student_recipe(lesson), [untrained(), untrained()]
    for module in modules:
        taught(module, reader(lesson.training.payloads), lesson=lesson, cache=lesson.answers(), recipe=recipe, name="s")
    assert len(seen) == 2, "one update in each of two epochs, once"
    for one, two in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        assert torch.equal(one, two)


def test_labels_are_used_where_there_are_some(make_lesson):
    """With alpha = 0 the teacher is not listened to: labels turned by one class give a student turned by one class."""
    turned = [(int(label) + 1) % 3 if row % 2 else None for row, label in enumerate(CLASSES[:600])]
    lesson = make_lesson(600, references=turned, epochs=15)
    module = untrained()
    recipe = replace(quick(lesson), alpha=0.0)
    taught(module, reader(lesson.training.payloads), lesson=lesson, cache=lesson.answers(), recipe=recipe, name="s")
    with torch.inference_mode():
        answers = module(torch.from_numpy(UNSEEN)).argmax(1).numpy()
    assert np.mean(answers == (CLASSES[1000:1200] + 1) % 3) > 0.8


def test_inputs_are_as_many_as_payloads(make_lesson):
    lesson = make_lesson(20, epochs=1)
    with pytest.raises(ModelError, match=r"as many as the payloads, 20\. Got 19"):
        taught(
            untrained(), {"input": INPUTS[:19]}, lesson=lesson, cache=lesson.answers(),
            recipe=student_recipe(lesson), name="s",
        )  # fmt: skip


def test_the_search_keeps_the_epochs_and_needs_rows_to_judge_on(make_lesson):
    lesson = make_lesson(120, epochs=4)
    recipe = student_recipe(lesson)
    assert searched(student, lesson=lesson, recipe=recipe) == recipe
    found = searched(student, lesson=replace(lesson, held_out=held_out(target=0.01)), recipe=recipe)
    assert replace(found, temperature=recipe.temperature, alpha=recipe.alpha) == recipe
    assert 0 <= found.alpha <= 1
    assert found.temperature > 0


def test_a_student_is_a_copy_of_what_an_engine_has_loaded(make_lesson):
    module = untrained()
    with make_lesson(3, module=module).opened() as answerer:
        copied = Student.of(answerer, owner="tiny")
        np.testing.assert_array_equal(copied.read(list(INPUTS[:2]))["input"], INPUTS[:2])
    assert copied.module is not module
    assert all(parameter.requires_grad for parameter in copied.module.parameters())

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from halve.chains import Lesson, all_cores, module_of
from halve.core import Prediction, TrainingSet
from halve.errors import ModelError, WorkloadError
from halve.testing.tiny_service import teacher, training_points

INPUTS, CLASSES = training_points()


class Counts:
    """Progress that adds up."""

    def __init__(self):
        self.done, self.totals = [], []

    def task(self, description, *, total):
        from contextlib import contextmanager

        @contextmanager
        def opened():
            self.totals.append(total)
            yield lambda steps=1: self.done.append(steps)

        return opened()


def test_the_teacher_is_asked_once_and_its_answers_kept(make_lesson):
    lesson = make_lesson(100)
    cache = lesson.answers()
    with torch.inference_mode():
        expected = torch.log_softmax(teacher()(torch.from_numpy(INPUTS[:100])), dim=1).numpy()
    np.testing.assert_allclose(np.exp(cache.log_probabilities()), np.exp(expected), atol=2e-3)
    assert sum(lesson.load.asked) == 101, "every payload, and one to learn the number of classes"
    assert max(lesson.load.asked) == 32
    again = lesson.answers()
    np.testing.assert_array_equal(again.log_probabilities(), cache.log_probabilities())
    assert (lesson.load.opened, lesson.load.closed) == (1, 1), "the second time nothing is loaded"


def test_another_teacher_and_other_payloads_are_asked_anew(make_lesson):
    lesson = make_lesson(50)
    lesson.answers()
    other = replace(lesson, teacher=replace(lesson.teacher, entry="mine:other"))
    other.answers()
    fewer = make_lesson(49)
    fewer.answers()
    assert (lesson.load.opened, fewer.load.opened) == (2, 1)
    assert len(list(lesson.caches.iterdir())) == 3


def test_bars_reach_their_end_with_and_without_a_cache(make_lesson):
    lesson = replace(make_lesson(70), progress=Counts())
    for _ in range(2):
        lesson.answers()
    assert lesson.progress.totals == [70, 70]
    assert sum(lesson.progress.done) == 140


class Speechless:
    """Answers without probabilities."""

    def answer(self, payloads):
        return Prediction(answers=np.zeros(len(payloads), np.int64))

    def close(self):
        self.is_closed = True


def test_a_teacher_must_give_probabilities(make_lesson):
    speechless = Speechless()
    lesson = replace(make_lesson(10), load=lambda: speechless)
    with pytest.raises(ModelError, match=r"'teacher' must give probabilities to teach\. It gives answers alone"):
        lesson.answers()
    assert speechless.is_closed
    with pytest.raises(ModelError, match="'teacher' shows no tensors to train on"), lesson.opened():
        pass


def test_labels_are_none_if_nothing_is_labelled(make_lesson):
    assert make_lesson(3).labels is None
    assert make_lesson(3, references=[None, 2, None]).labels.tolist() == [-1, 2, -1]


def test_a_run_offers_its_training_data_and_its_folder(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    with pytest.raises(WorkloadError, match="training must be given in the config"):
        Lesson.of_bench(bench, bench.baseline)
    payloads = [example.payload for example in bench.workload.search[:20]]
    training = TrainingSet(payloads=payloads, references=np.full(20, -1), sha256="0" * 64)
    bench.workload = replace(bench.workload, training=training)
    lesson = Lesson.of_bench(bench, bench.baseline)
    assert lesson.training is training
    assert lesson.caches.is_relative_to(tmp_path)
    lesson.answers()
    lesson.answers()
    assert bench.engines.loaded == ["full"]


def test_a_copy_is_trained_and_the_original_stays(make_lesson):
    frozen = teacher().requires_grad_(False)
    with make_lesson(3, module=frozen).opened() as answerer:
        copied = module_of(answerer, owner="teacher")
    assert all(parameter.requires_grad for parameter in copied.parameters())
    with torch.no_grad():
        copied[0].weight.zero_()
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert frozen[0].weight.abs().sum() > 0


def test_a_file_cannot_be_changed():
    with pytest.raises(ModelError, match=r"'big' must be a torch module to be changed\. It is a file"):
        module_of(SimpleNamespace(runtime_model=Path("model.onnx")), owner="big")


def test_all_cores_are_for_the_time_of_the_context():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with all_cores():
            assert torch.get_num_threads() == len(os.sched_getaffinity(0))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)

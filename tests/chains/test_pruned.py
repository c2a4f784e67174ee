import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_model

from halve.chains import module_of, read_record, recovery_recipe, write_pruned
from halve.core import Model
from halve.engines import engine
from halve.errors import ModelError
from halve.measure.artifacts import adopt_files
from halve.techniques.compression.pruning import RebuildSpecification, rebuild
from halve.testing.tiny_service import teacher, training_points

UNSEEN = training_points()[0][1500:]


@pytest.fixture
def cut(make_lesson, tmp_path):
    """Return what prunes the teacher to half its seconds into a folder."""
    lesson = make_lesson(400, epochs=3)

    def make(name="out", *, lesson=lesson, name_of_work="half"):
        folder = tmp_path / name
        folder.mkdir()
        specification = write_pruned(
            folder, lesson=lesson, target_latency_ratio=0.5, recipe=recovery_recipe(lesson), name=name_of_work
        )
        return folder, specification

    make.lesson = lesson
    return make


def test_a_pruned_teacher_is_smaller_and_answers_nearly_as_before(cut):
    folder, specification = cut()
    names = ["model.onnx", "pruned.json", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    module = rebuild(teacher(), RebuildSpecification.from_json((folder / "pruned.json").read_text()))
    assert RebuildSpecification.from_json((folder / "pruned.json").read_text()) == specification
    before = sum(parameter.numel() for parameter in teacher().parameters())
    assert sum(parameter.numel() for parameter in module.parameters()) < before

    load_model(module, folder / "weights.safetensors")
    module.eval()
    model = Model(name="cut", engine="onnxruntime", files=adopt_files(folder, relative_to=folder))
    answerer = engine("onnxruntime").load(model, threads=1, folder=folder)
    answers = answerer.answer(list(UNSEEN)).answers
    answerer.close()
    with torch.inference_mode():
        np.testing.assert_array_equal(answers, module(torch.from_numpy(UNSEEN)).argmax(1).numpy())
        expected = teacher()(torch.from_numpy(UNSEEN)).argmax(1).numpy()
    assert np.mean(answers == expected) > 0.9

    record = read_record(folder)
    assert record.chain == "pruning > distillation"
    assert record.steps[0].parameters == {"target_latency_ratio": 0.5, "importance": "taylor"}
    assert 0 < record.steps[0].figures["measured_ratio"] < 1


def test_a_build_that_was_killed_keeps_its_widths(cut, tmp_path):
    """Timings never repeat: what was chosen before the kill is chosen after it."""
    lesson = cut.lesson
    asked = []

    def killed(batch):
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return batch

    stopped = replace(lesson, training=replace(lesson.training, augment=killed))
    with pytest.raises(KeyboardInterrupt):
        cut("first", lesson=stopped)
    kept = (tmp_path / "work" / "pruning-half" / "pruned.json").read_text()
    figures = json.loads((tmp_path / "work" / "pruning-half" / "figures.json").read_text())
    folder, _ = cut("second")
    assert (folder / "pruned.json").read_text() == kept
    assert read_record(folder).steps[0].figures == figures
    assert lesson.load.asked.count(32) == 400 // 32, "the teacher was asked once"


def test_the_teacher_itself_is_not_changed(cut):
    with cut.lesson.opened() as answerer:
        before = {name: tensor.clone() for name, tensor in module_of(answerer, owner="t").state_dict().items()}
    cut()
    for name, tensor in cut.lesson.load.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_cannot_be_pruned_is_refused(make_lesson, tmp_path):
    from torch import nn

    lesson = make_lesson(40, module=nn.Sequential(nn.Linear(8, 3)).eval(), epochs=1)
    with pytest.raises(ModelError):
        write_pruned(tmp_path, lesson=lesson, target_latency_ratio=0.3, recipe=recovery_recipe(lesson), name="x")

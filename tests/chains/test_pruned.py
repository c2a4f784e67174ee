import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_model

from halve.chains import read_record, recovery_recipe, write_pruned
from halve.core import Model
from halve.engines import engine
from halve.errors import ModelError
from halve.measure.artifacts import adopt_files
from halve.techniques.compression.pruning import RebuildSpecification, rebuild
from halve.testing.tiny_service import teacher, training_points

UNSEEN = training_points()[0][1500:]
wide = partial(teacher, width=1024)


@pytest.mark.slow
def test_a_pruned_teacher_learns_from_what_it_was_and_a_kill_costs_no_widths(make_lesson, tmp_path):
    """Timings never repeat: what was chosen before the kill is chosen after it."""
    lesson = make_lesson(400, module=wide(), epochs=30)
    before = {name: tensor.clone() for name, tensor in lesson.load.module.state_dict().items()}
    asked = []

    def killed(batch):
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return batch

    def cut(name, taught):
        folder = tmp_path / name
        folder.mkdir()
        write_pruned(
            folder,
            lesson=taught,
            target_latency_ratio=0.6,
            recipe=replace(recovery_recipe(taught), learning_rate=5e-3),
            name="cut",
        )
        return folder

    with pytest.raises(KeyboardInterrupt):
        cut("first", replace(lesson, training=replace(lesson.training, augment=killed)))
    work = tmp_path / "work" / "pruning-cut"
    kept, figures = (work / "pruned.json").read_text(), json.loads((work / "figures.json").read_text())
    folder = cut("second", lesson)

    names = ["model.onnx", "pruned.json", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "pruned.json").read_text() == kept
    record = read_record(folder)
    assert record.chain == "pruning > distillation"
    assert record.steps[0].parameters == {"target_latency_ratio": 0.6, "importance": "taylor"}
    assert record.steps[0].figures == figures
    assert 0 < figures["measured_ratio"] < 1
    assert lesson.load.asked.count(32) == 400 // 32, "the teacher was asked once"
    for name, tensor in lesson.load.module.state_dict().items():
        assert torch.equal(tensor, before[name])

    module = rebuild(wide(), RebuildSpecification.from_json(kept))
    assert sum(each.numel() for each in module.parameters()) < sum(each.numel() for each in before.values())
    load_model(module, folder / "weights.safetensors")
    module.eval()
    model = Model(name="cut", engine="onnxruntime", files=adopt_files(folder, relative_to=folder))
    answerer = engine("onnxruntime").load(model, threads=1, folder=folder)
    answers = answerer.answer(list(UNSEEN)).answers
    answerer.close()
    with torch.inference_mode():
        np.testing.assert_array_equal(answers, module(torch.from_numpy(UNSEEN)).argmax(1).numpy())
        expected = wide()(torch.from_numpy(UNSEEN)).argmax(1).numpy()
    share = np.mean(answers == expected)
    assert share > 0.6


def test_what_cannot_be_pruned_is_refused(make_lesson, tmp_path):
    from torch import nn

    lesson = make_lesson(40, module=nn.Sequential(nn.Linear(8, 3)).eval(), epochs=1)
    with pytest.raises(ModelError):
        write_pruned(tmp_path, lesson=lesson, target_latency_ratio=0.3, recipe=recovery_recipe(lesson), name="x")

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from halve import chains
from halve.assembly.lessons import Promise
from halve.assembly.made import finish
from halve.assembly.staging import stage
from halve.core import Preprocess
from halve.core.progress import Silent
from halve.errors import RunFolderError
from halve.gate import compare
from halve.testing.tiny_service import linear, teacher, training_points
from halve.workload import training_set

INPUTS, CLASSES = training_points()
PROMISE = Promise(drop_at_most=0.03, confidence=0.95)


def new(path):
    path.mkdir()
    return path


@pytest.fixture
def work(tmp_path):
    """A staged teacher, a lesson of payloads that nothing has seen, and a folder with a chain's files."""
    source = stage(teacher(), new(tmp_path / "teacher"))
    lesson = chains.Lesson(
        teacher=source.model,
        load=source.load,
        training=training_set(list(INPUTS[:300]), list(CLASSES[:300])),
        caches=tmp_path / "teachers",
        workspace=lambda name: tmp_path / "work" / name,
        seed=4,
        progress=Silent(),
    )
    record = chains.ChainRecord(
        parent="Sequential",
        parent_fingerprint=source.model.fingerprint,
        training_sha256="0",
        n_training=1,
        seed=4,
        steps=(chains.ChainStep(technique="distillation"),),
    )
    fp32 = new(tmp_path / "fp32")
    chains.write_module(fp32, linear(), {"input": INPUTS[:64]}, record=record)
    (fp32 / "pruned.json").write_text("{}")
    new(tmp_path / "work")
    folder = tmp_path / "linear-made"

    def made(**changes):
        wanted = {"calibration": None, "reads": source, "lesson": lesson, **changes}
        return finish(folder, fp32=fp32, teacher=source, promise=PROMISE, **wanted)

    return SimpleNamespace(source=source, lesson=lesson, fp32=fp32, folder=folder, finish=made, work=tmp_path / "work")


def test_a_chain_in_fp32_is_copied_with_the_tokenizer(work):
    (work.source.folder / "tokenizer.json").write_text("{}")
    preprocess = Preprocess(kind="tensor", tokenizer_file="tokenizer.json")
    reads = replace(work.source, model=replace(work.source.model, preprocess=preprocess))
    work.finish(reads=reads)
    names = ["model.onnx", "pruned.json", "recipe.json", "tokenizer.json", "weights.safetensors"]
    assert sorted(path.name for path in work.folder.iterdir()) == names
    for path in work.fp32.iterdir():
        assert (work.folder / path.name).read_bytes() == path.read_bytes()


def test_integers_take_the_place_of_the_model_and_add_to_its_record(work):
    work.finish(calibration={"input": INPUTS[:64]})
    names = ["manifest.json", "model.onnx", "pruned.json", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in work.folder.iterdir()) == names
    assert chains.read_record(work.folder).chain == "distillation > quantization"
    assert (work.folder / "model.onnx").read_bytes() != (work.fp32 / "model.onnx").read_bytes()
    assert json.loads((work.folder / "manifest.json").read_text())["schema"] == "halve.quantized/1"


def test_a_finished_model_is_compared_and_timed(work):
    import torch

    made = work.finish()
    assert not work.work.exists(), "nothing is left to go on from"
    assert made.folder == work.folder
    right = []
    with torch.inference_mode():
        for module in (teacher(), linear()):
            right.append((module(torch.from_numpy(INPUTS[:300])).argmax(1).numpy() == CLASSES[:300]).astype(float))
    assert made.drop == compare(*right, margin=0.03, confidence=0.95)
    assert made.judged_by == "labels"
    assert made.speed_ratio > 0
    assert made.record == chains.read_record(work.folder)
    model = made.model
    assert (model.name, model.engine, model.entry, model.parent) == ("linear-made", "onnxruntime", None, "Sequential")
    assert model.recipe.technique == "distillation"
    assert model.recipe.parameters == {"chain": "distillation", "seed": 4}
    assert {file.path for file in model.files} == {path.name for path in work.folder.iterdir()}


def test_without_labels_the_teacher_never_errs(work):
    made = work.finish(lesson=replace(work.lesson, training=training_set(list(INPUTS[:100]))))
    assert made.judged_by == "the teacher's answers"
    assert made.drop.baseline == 1.0
    assert 0.5 < made.drop.candidate < 1
    assert np.isfinite(made.drop.upper_bound)


def test_a_model_that_cannot_be_compared_leaves_no_folder(work):
    (work.fp32 / "recipe.json").write_text("damaged")
    with pytest.raises(RunFolderError, match=r"recipe\.json is damaged"):
        work.finish()
    assert not work.folder.exists()
    assert work.work.exists(), "the same command can go on"

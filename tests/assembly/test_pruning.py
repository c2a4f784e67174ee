from functools import partial

import numpy as np
import pytest

import halve
from halve import chains
from halve.assembly.lessons import in_parts
from halve.engines import engine
from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import RebuildSpecification, rebuild
from halve.techniques.compression.quantization import export_onnx
from halve.testing.tiny_service import teacher, training_points, untrained
from halve.workload import training_set

INPUTS, CLASSES = training_points()
UNSEEN = INPUTS[1200:]
wide = partial(teacher, width=1024)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Answers of teachers are kept below the test's folder."""
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def prune(model, out, **given):
    return halve.prune(
        model,
        out=out,
        **{"data": list(INPUTS[:600]), "target_latency_ratio": 0.6, "epochs": 30, "learning_rate": 5e-3, **given},
    )


@pytest.mark.slow
def test_a_network_is_cut_taught_and_put_into_integers(tmp_path):
    import torch

    module = wide()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    made = prune(module, tmp_path / "small", data=(list(INPUTS[:600]), list(CLASSES[:600])), integers=True)
    assert made.record.chain == "pruning > distillation > quantization"
    assert made.judged_by == "labels"
    assert made.record == chains.read_record(made.folder)
    assert 0 < made.record.steps[0].figures["measured_ratio"] < 1
    assert made.record.n_training == len(in_parts(training_set(list(INPUTS[:600])), share=0.2).learn)
    names = ["manifest.json", "model.onnx", "pruned.json", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in made.folder.iterdir()) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "small"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module.training, "what was given stays as it was"

    answerer = engine("onnxruntime").load(made.model, threads=1, folder=made.folder)
    answers = answerer.answer(list(UNSEEN)).answers
    answerer.close()
    with torch.inference_mode():
        share = np.mean(answers == module(torch.from_numpy(UNSEEN)).argmax(1).numpy())
    assert share > 0.6
    rebuilt = rebuild(wide(), RebuildSpecification.from_json((made.folder / "pruned.json").read_text()))
    count = sum(parameter.numel() for parameter in rebuilt.parameters())
    assert count < sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"target_latency_ratio": 0.0}, r"target_latency_ratio must be in \(0, 1\)\. Got 0\.0"),
        ({"target_latency_ratio": 1.0}, r"target_latency_ratio must be in"),
        ({"epochs": 0}, r"epochs must be at least 1\. Got 0"),
        ({"confidence": 1.0}, "confidence must be in"),
        ({"hold_out": 2}, "hold_out must be in"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_asked(tmp_path, given, sentence):
    with pytest.raises(InvalidParameterError, match=sentence):
        prune(untrained(), tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_file_cannot_be_pruned(tmp_path):
    export_onnx(untrained(), {"input": INPUTS[:8]}, tmp_path / "file.onnx")
    with pytest.raises(ModelError, match=r"must be a torch module to be changed\. It is a file"):
        prune(str(tmp_path / "file.onnx"), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "file.onnx"]


def test_a_folder_that_exists_is_not_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidParameterError, match="out must be a folder that does not exist yet"):
        prune(untrained(), tmp_path / "out")

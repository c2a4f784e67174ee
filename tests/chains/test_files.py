import json

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, load_model
from torch import nn

from halve.chains import (
    ChainRecord,
    ChainStep,
    batches_of,
    first_rows,
    read_record,
    seconds_as_served,
    write_integers,
    write_module,
)
from halve.errors import ModelError
from halve.testing.tiny_service import training_points, untrained

INPUTS = {"input": training_points()[0][:64]}
RECORD = ChainRecord(
    parent="teacher",
    parent_fingerprint="f",
    training_sha256="d",
    n_training=64,
    seed=0,
    steps=(ChainStep(technique="distillation"),),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("fp32"), untrained().train()
    write_module(folder, module, INPUTS, record=RECORD)
    return folder, module


def run(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, INPUTS)[0]


def test_the_onnx_file_answers_as_the_module(written):
    folder, module = written
    assert not module.training
    with torch.inference_mode():
        expected = module(torch.from_numpy(INPUTS["input"])).numpy()
    np.testing.assert_allclose(run(folder / "model.onnx"), expected, atol=1e-5)


def test_weights_and_record_lie_beside_it(written):
    folder, module = written
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "recipe.json", "weights.safetensors"]
    fresh = untrained()
    with torch.no_grad():
        next(fresh.parameters()).zero_()
    load_model(fresh, folder / "weights.safetensors")
    for name, tensor in module.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)
    assert load_file(folder / "weights.safetensors").keys() == module.state_dict().keys()
    assert read_record(folder).steps == RECORD.steps


def test_what_cannot_be_exported_is_a_model_error(tmp_path):
    class Stubborn(nn.Module):
        def forward(self, inputs):
            return torch.stack([row[:3] if float(row[0]) > 0 else row[1:4] for row in inputs])

    with pytest.raises(ModelError, match="export"):
        write_module(tmp_path, Stubborn(), INPUTS, record=RECORD)


def test_integers_carry_the_record_of_the_whole_chain(written, tmp_path):
    folder, _ = written
    write_integers(tmp_path, source=folder, inputs=INPUTS)
    record = read_record(tmp_path)
    assert record.chain == "distillation > quantization"
    assert record.steps[1].parameters["weight_bits"] in (7, 8)
    assert 0 < record.steps[1].figures["relative_rmse"] < 0.1
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["recipe"] == record.steps[1].parameters["recipe"]
    full, small = run(folder / "model.onnx"), run(tmp_path / "model.onnx")
    assert np.mean(full.argmax(axis=1) == small.argmax(axis=1)) > 0.9
    assert np.sqrt(np.mean((full - small) ** 2) / np.mean(full**2)) < 0.1


def test_integers_of_a_model_without_a_record_have_none(written, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.onnx").write_bytes((written[0] / "model.onnx").read_bytes())
    (tmp_path / "int8").mkdir()
    write_integers(tmp_path / "int8", source=tmp_path / "bare", inputs=INPUTS)
    assert sorted(path.name for path in (tmp_path / "int8").iterdir()) == ["manifest.json", "model.onnx"]


def test_modules_are_timed_as_they_are_served_under_their_names():
    wide = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
    found = seconds_as_served(INPUTS)({"narrow": untrained(), "wide": wide})
    assert list(found) == ["narrow", "wide"]
    assert all(0 < seconds < 1 for seconds in found.values())


@given(st.integers(1, 100), st.integers(1, 120))
def test_batches_put_together_are_the_inputs(n, rows):
    inputs = {"input_ids": np.arange(2 * n).reshape(n, 2), "attention_mask": np.ones((n, 2))}
    batches = batches_of(inputs)
    for name, array in inputs.items():
        assert all(len(batch[name]) <= 32 for batch in batches)
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), array)
        np.testing.assert_array_equal(first_rows(inputs, rows)[name], array[:rows])

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization import export_onnx
from halve.techniques.compression.quantization.runtime import run_logits


def logits_of(module, batch):
    with torch.inference_mode():
        return module(*(torch.from_numpy(array) for array in batch.values())).numpy()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_images_answer_alike_at_every_batch_size(residual, exported, rng, rows):
    batch = {"input": rng.standard_normal((rows, 1, 8, 8)).astype(np.float32)}
    actual = run_logits(exported / "residual.onnx", [batch])
    np.testing.assert_allclose(actual, logits_of(residual, batch), atol=1e-5)


def test_tokens_answer_alike_at_every_length(encoder, exported, tokens):
    for batch in tokens:
        actual = run_logits(exported / "encoder.onnx", [batch])
        np.testing.assert_allclose(actual, logits_of(encoder, batch), atol=1e-5)


def test_a_single_example_of_a_single_token_is_enough(encoder, tokens, tmp_path):
    one = {name: array[:1, :1] for name, array in tokens[0].items()}
    export_onnx(encoder, one, tmp_path / "m.onnx")
    actual = run_logits(tmp_path / "m.onnx", [tokens[3]])
    np.testing.assert_allclose(actual, logits_of(encoder, tokens[3]), atol=1e-5)


def test_axes_and_names_are_those_asked_for(exported):
    graph = onnx.load(exported / "encoder.onnx").graph
    assert [node.name for node in graph.input] == ["input_ids", "attention_mask"]
    assert [node.name for node in graph.output] == ["logits"]
    axes = [[dim.dim_param or dim.dim_value for dim in node.type.tensor_type.shape.dim] for node in graph.input]
    assert axes == [["batch", "tokens"]] * 2


def test_nothing_tells_where_it_was_made(exported):
    for name in ("residual.onnx", "encoder.onnx"):
        content = (exported / name).read_bytes()
        for trace in (b".py", b"stack_trace", str(Path.cwd()).encode(), b"class_hierarchy"):
            assert trace not in content


EXPORT_SEEDED = """
import numpy as np, torch
from pathlib import Path
from torch import nn
from halve.techniques.compression.quantization import export_onnx
torch.manual_seed(3)
module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
for name in names:
    export_onnx(module, {"input": np.zeros((2, 1, 8, 8), np.float32)}, Path(name))
"""


def test_the_same_module_gives_the_same_bytes_quietly_in_every_process(tmp_path):
    here = [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]
    exec(EXPORT_SEEDED, {"names": here})
    command = [sys.executable, "-c", f"names = ['c.onnx']\n{EXPORT_SEEDED}"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    contents = [(tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx", "c.onnx")]
    assert len(set(contents)) == 1


def test_inputs_and_module_are_left_as_they_were(residual, rng, tmp_path):
    class InPlace(nn.Module):
        def forward(self, images):
            images.mul_(2)
            return images.flatten(1)

    batch = {"input": rng.standard_normal((3, 1, 2, 2)).astype(np.float32)}
    before = batch["input"].copy()
    export_onnx(InPlace().eval(), batch, tmp_path / "m.onnx")
    np.testing.assert_array_equal(batch["input"], before)


def test_a_module_that_forgets_its_batch_axis_is_refused(tmp_path):
    class Fixed(nn.Module):
        def forward(self, images):
            return images.reshape(2, -1)

    with pytest.raises(ModelError, match=r"Fixed failed on a batch of 1: RuntimeError: shape .* is invalid"):
        export_onnx(Fixed().eval(), {"input": np.zeros((2, 3), np.float32)}, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_module_whose_graph_answers_otherwise_is_refused(tmp_path):
    class Moody(nn.Module):
        def forward(self, images):
            # Traced with symbols the branch is the first one, whatever the values say later.
            return images * (1.0 if torch.compiler.is_exporting() else 1.01)

    with pytest.raises(ModelError, match=r"within 0.001 of the module's, .* Got 0.0099 at batch 1"):
        export_onnx(Moody().eval(), {"input": np.ones((2, 3), np.float32)}, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_data_dependent_code_is_refused_in_one_sentence(tmp_path):
    class Branches(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ModelError, match="torch cannot export Branches: ") as caught:
        export_onnx(Branches().eval(), {"input": np.ones((2, 3), np.float32)}, tmp_path / "m.onnx")
    assert len(str(caught.value).splitlines()) == 1


def test_training_mode_is_refused(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"module must be in evaluation mode. .* Call module.eval\(\)."):
        export_onnx(nn.Linear(3, 2), {"input": np.ones((2, 3), np.float32)}, tmp_path / "m.onnx")


def test_only_torch_modules_are_exported(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"module must be a torch.nn.Module. Got 'PosixPath'"):
        export_onnx(tmp_path, {"input": np.ones((2, 3), np.float32)}, tmp_path / "m.onnx")


@pytest.mark.parametrize("inputs", [{}, {"input": np.zeros((0, 3), np.float32)}])
def test_at_least_one_row_is_needed(inputs, tmp_path):
    with pytest.raises(InvalidParameterError, match="inputs must be at least one row"):
        export_onnx(nn.Linear(3, 2).eval(), inputs, tmp_path / "m.onnx")


def test_logits_must_be_a_matrix(tmp_path):
    with pytest.raises(ModelError, match=r"must return logits of shape \(batch, classes\). Got \(1, 2, 3\)"):
        export_onnx(nn.Identity().eval(), {"input": np.ones((2, 2, 3), np.float32)}, tmp_path / "m.onnx")

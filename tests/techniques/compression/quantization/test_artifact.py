import hashlib
from contextlib import contextmanager

import numpy as np
import onnx
import pytest

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization import Data, Order, check_folder, read_manifest, write_artifact
from halve.techniques.compression.quantization.agreement import agreement
from halve.techniques.compression.quantization.quantize import split_batches
from halve.techniques.compression.quantization.runtime import run_logits


def fast(actions):
    """Time nothing: fp32 takes a second, everything else half of one."""
    return {name: [1.0 if name == "fp32" or name.endswith(", fp32") else 0.5] * 9 for name in actions}


def write(order, folder, **given):
    folder.mkdir()
    return write_artifact(order, folder, timer=fast, **given)


def test_the_folder_holds_the_model_and_a_manifest_that_speaks_of_it(exported, images, tmp_path):
    manifest = write(Order(), tmp_path / "out", model=exported / "residual.onnx", data=Data(batches=images))
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]
    assert read_manifest(folder) == manifest
    assert check_folder(folder) == ()
    content = (folder / "model.onnx").read_bytes()
    assert manifest.model_sha256 == hashlib.sha256(content).hexdigest()
    assert manifest.size_bytes == len(content)
    _, check = split_batches(images)
    found = agreement(run_logits(exported / "residual.onnx", check), run_logits(content, check))
    assert manifest.agreement == found
    assert [layer.operator for layer in manifest.layers] == ["Conv", "Conv", "Gemm"]
    assert {layer.decision for layer in manifest.layers} == {"integers"}
    assert all(layer.error > 0 and layer.reason == "2.0 times as fast here" for layer in manifest.layers)


def test_products_of_two_activations_are_named_in_the_table(exported, tokens, tmp_path):
    manifest = write(
        Order(method="static"), tmp_path / "out", model=exported / "encoder.onnx", data=Data(batches=tokens)
    )
    left = [layer for layer in manifest.layers if layer.decision == "fp32"]
    assert [layer.operator for layer in left] == ["MatMul", "MatMul"], "queries by keys, and weights by values"
    assert all("both factors are computed" in layer.reason for layer in left)


@pytest.mark.parametrize("method", ["static", "dynamic", "weight-only"])
def test_every_method_answers_as_the_manifest_says(exported, tokens, tmp_path, method):
    manifest = write(
        Order(method=method, accept_slower=True),
        tmp_path / "out",
        model=exported / "encoder.onnx",
        data=Data(batches=tokens),
    )
    assert manifest.method == method
    assert 0 < manifest.agreement.relative_rmse < 0.1
    assert (manifest.activation_bits is None) == (method == "weight-only")
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node}
    assert {"static": "QuantizeLinear", "dynamic": "MatMulInteger", "weight-only": "MatMulNBits"}[method] in kinds


def test_four_bits_without_convolutions_are_weights_only(exported, tokens, images, tmp_path):
    dense = write(Order(weight_bits=4), tmp_path / "dense", model=exported / "encoder.onnx", data=Data(batches=tokens))
    assert dense.activation_bits is None
    assert "groups of 32, GPTQ" in dense.recipe
    conv = write(Order(weight_bits=4), tmp_path / "conv", model=exported / "residual.onnx", data=Data(batches=images))
    assert conv.recipe.startswith("W4A8")


def test_training_needs_the_module_and_gives_integers_that_compute_what_was_trained(residual, rng, tmp_path):
    inputs = rng.standard_normal((128, 1, 8, 8)).astype(np.float32)
    batches = [{"input": inputs[start : start + 32]} for start in range(0, 128, 32)]
    labels = rng.integers(0, 5, 128)
    steps = []

    @contextmanager
    def step(text):
        steps.append(text)
        yield

    order = Order(weight_bits=4, activation_bits=4, qat_epochs=2, accept_slower=True)
    manifest = write(order, tmp_path / "out", model=residual, data=Data(batches=batches, labels=labels), step=step)
    assert steps == ["exporting fp32", "training 2 epochs", "converting and checking"]
    assert manifest.recipe == "W4A4, 2 epochs with quantization in the loop"
    assert [layer.bits for layer in manifest.layers] == [8, 4, 8]
    with pytest.raises(InvalidParameterError, match="qat_epochs must be 0 for an ONNX file: training needs the module"):
        write(order, tmp_path / "again", model=tmp_path / "m.onnx", data=Data(batches=batches))


def test_without_labels_training_follows_the_fp32_model(residual, images, tmp_path):
    order = Order(qat_epochs=1, accept_slower=True)
    manifest = write(order, tmp_path / "out", model=residual, data=Data(batches=images))
    assert manifest.agreement.relative_rmse < 0.5


def test_ten_runs_with_one_seed_and_the_same_timings_give_one_hash(exported, images, tmp_path):
    runs = set()
    for number in range(10):
        folder = tmp_path / str(number)
        write(Order(seed=3), folder, model=exported / "residual.onnx", data=Data(batches=images))
        runs.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())))
    assert len(runs) == 1


def test_nothing_to_calibrate_on_is_refused(exported, tmp_path):
    with pytest.raises(InvalidParameterError, match=r"calibration must be at least one input\. Got 0"):
        write(Order(), tmp_path / "out", model=exported / "residual.onnx", data=Data(batches=[]))


def test_a_file_that_is_no_model_is_refused(images, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"broken\.onnx is not a readable ONNX"):
        write(Order(), tmp_path / "out", model=tmp_path / "broken.onnx", data=Data(batches=images))

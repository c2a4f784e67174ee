import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import run_logits
from halve.techniques.compression.quantization.training import convert, prepare
from halve.techniques.compression.quantization.training.prepare import products, quantizers


def kernels(path, folder):
    """What onnxruntime really runs: operators of its optimized graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("name", ["dense", "convolutional", "encoder"])
@pytest.mark.parametrize("bits", [8, 4])
def test_every_product_runs_in_integers(cases, tmp_path, name, bits):
    network, inputs = cases[name]
    prepared = prepare(network, inputs, weight_bits=bits, activation_bits=bits)
    converted = convert(prepared, inputs, tmp_path / "model.onnx")
    assert [layer.name for layer in converted.layers] == [part.name for part in products(prepared).values()]
    assert converted.left_in_fp32 == ()
    assert list(converted.tensors) == list(quantizers(prepared))
    run = kernels(converted.path, tmp_path)
    integer = run["QLinearConv"] + run["QGemm"] + run["MatMulIntegerToFloat"]
    assert integer == len(converted.layers)
    assert run["Conv"] + run["FusedConv"] + run["Gemm"] + run["LeakyRelu"] == 0


def test_weights_of_4_bits_are_packed(cases, tmp_path):
    prepared = prepare(*cases["convolutional"], weight_bits=4, edge_bits=None)
    path = convert(prepared, cases["convolutional"][1], tmp_path / "model.onnx").path
    model = onnx.load(path)
    packed = {len(tensor.raw_data) for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT4}
    assert packed == {8 * 9 // 2, 8 * 8 * 9 // 2, 8 * 5 // 2}


def test_a_kept_layer_stays_fp32_and_is_named(cases, tmp_path):
    prepared = prepare(*cases["encoder"], keep=["encoder.layers.0.linear1"])
    converted = convert(prepared, cases["encoder"][1], tmp_path / "model.onnx")
    assert len(converted.layers) == 4
    assert len(converted.left_in_fp32) == 1
    assert "encoder.layers.0.linear1" not in [layer.name for layer in converted.layers]


def test_pooling_and_reshaping_do_not_break_the_chain_of_integers(rng, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    inputs = {"input": rng.standard_normal((8, 1, 8, 8)).astype(np.float32)}
    converted = convert(prepare(network, inputs, activation_bits=4), inputs, tmp_path / "model.onnx")
    run = kernels(converted.path, tmp_path)
    assert (run["QLinearConv"], run["QGemm"], run["Conv"], run["Gemm"]) == (1, 1, 0, 0)


def test_the_same_module_gives_the_same_bytes(cases, tmp_path):
    network, inputs = cases["convolutional"]
    files = [
        convert(prepare(network, inputs, weight_bits=4), inputs, tmp_path / f"{number}.onnx").path for number in (1, 2)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_users_leaky_relu_is_no_marker(rng, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3)).eval()
    inputs = {"input": rng.standard_normal((64, 6)).astype(np.float32)}
    prepared = prepare(network, inputs)
    converted = convert(prepared, inputs, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = prepared(torch.from_numpy(inputs["input"])).numpy()
    np.testing.assert_allclose(run_logits(converted.path, [inputs]), expected, atol=1e-5)


def test_what_was_not_prepared_or_is_in_training_is_refused(cases, tmp_path):
    network, inputs = cases["dense"]
    with pytest.raises(InvalidParameterError, match=r"prepared must be a module from prepare\(\). Got 'Sequential'"):
        convert(network, inputs, tmp_path / "model.onnx")
    with pytest.raises(InvalidParameterError, match="in evaluation mode"):
        convert(prepare(network, inputs).train(), inputs, tmp_path / "model.onnx")


def test_a_layer_that_is_not_found_again_is_named(cases, tmp_path, monkeypatch):
    prepared = prepare(*cases["dense"])
    monkeypatch.setattr(Graph, "rows", lambda *_: np.zeros((1, 1), np.float32))
    with pytest.raises(ModelError, match="0 must be a product with a constant weight in the exported graph"):
        convert(prepared, cases["dense"][1], tmp_path / "model.onnx")

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from halve.errors import ModelError
from halve.techniques.compression.quantization.training import Recipe, convert, parity, prepare, train

BITS = [(8, 8), (4, 4)]


@pytest.fixture
def trained(cases, answers):
    """A prepared network after some updates: steps, statistics and biases have moved."""

    def trained(name, *, weight_bits, activation_bits):
        network, inputs = cases[name]
        prepared = prepare(network, inputs, weight_bits=weight_bits, activation_bits=activation_bits, edge_bits=None)
        recipe = Recipe(epochs=3, learning_rate=0.02, batch_size=16)
        train(prepared, inputs, answers[name].argmax(1), recipe=recipe, teacher=network)
        return prepared, inputs

    return trained


@pytest.mark.parametrize(("weight_bits", "activation_bits"), BITS)
@pytest.mark.parametrize("name", ["dense", "convolutional", "encoder"])
def test_integers_are_at_most_one_step_apart(trained, tmp_path, name, weight_bits, activation_bits):
    prepared, inputs = trained(name, weight_bits=weight_bits, activation_bits=activation_bits)
    converted = convert(prepared, inputs, tmp_path / "model.onnx")
    found = parity(prepared, converted, inputs)
    assert found.largest_steps <= 1
    assert max(tensor.differing_share for tensor in found.tensors) < 1e-3
    assert found.n == 96
    assert found.disagreement_share == 0
    assert len(found.tensors) == len(converted.tensors)


def test_a_wrong_file_is_found_out(trained, tmp_path):
    prepared, inputs = trained("convolutional", weight_bits=4, activation_bits=4)
    converted = convert(prepared, inputs, tmp_path / "model.onnx")
    model = onnx.load(converted.path)
    scales = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale")]
    for tensor in scales:
        if numpy_helper.to_array(tensor).shape == (8,):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    onnx.save(model, converted.path)
    found = parity(prepared, converted, inputs)
    assert found.largest_steps > 1
    assert found.logit_difference > 0.01


def test_a_file_without_the_grids_is_refused(trained, tmp_path):
    prepared, inputs = trained("dense", weight_bits=8, activation_bits=8)
    converted = convert(prepared, inputs, tmp_path / "model.onnx")
    other = dataclasses.replace(converted, tensors={"quantizer_0": "elsewhere"})
    with pytest.raises(ModelError, match=r"model.onnx must hold the integers 'elsewhere'"):
        parity(prepared, other, inputs)

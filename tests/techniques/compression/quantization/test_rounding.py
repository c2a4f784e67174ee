import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Scheme, quantize_tensor
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.rounding import ROUNDINGS, round_layers


def output_error(graph, layer, weight, inputs):
    (rows,) = graph.input_rows(layer, inputs)
    lost = graph.rows(layer) - graph.rows(layer, weight.real())
    return float(np.square(rows @ lost.T).mean())


@pytest.fixture
def correlated(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((24, 12)), rng.standard_normal((12, 4))))
    inputs = (rng.standard_normal((256, 6)) @ rng.standard_normal((6, 24))).astype(np.float32)
    return graph, [{"input": inputs}]


@pytest.mark.parametrize("bits", [3, 8])
def test_looking_at_inputs_never_errs_more_than_nearest(correlated, bits):
    graph, batches = correlated
    layer = graph.layers[0]
    schemes = {layer.name: Scheme(bits=bits, axis=0)}
    errors = {
        method: output_error(
            graph, layer, round_layers(graph, schemes, method=method, batches=batches)[layer.name], batches[0]["input"]
        )
        for method in ROUNDINGS
    }
    assert errors["gptq"] <= errors["nearest"]
    assert errors["adaround"] <= errors["nearest"]
    if bits == 3:
        assert min(errors["gptq"], errors["adaround"]) < 0.6 * errors["nearest"]


def test_nearest_on_many_bits_is_the_oracle_s(correlated):
    graph, batches = correlated
    layer = graph.layers[0]
    (made,) = round_layers(graph, {layer.name: Scheme(axis=0)}, method="nearest", batches=batches).values()
    oracle = quantize_tensor(graph.constant(layer.weight), Scheme(axis=layer.output_axis))
    np.testing.assert_array_equal(made.values, oracle.values)
    np.testing.assert_array_equal(made.grid.scale, oracle.grid.scale)
    assert made.grid.scheme == oracle.grid.scheme


@pytest.mark.parametrize("method", ROUNDINGS)
def test_a_convolution_comes_back_in_its_stored_layout(exported, images, method):
    graph = Graph.load(exported / "residual.onnx")
    layer = graph.layers[1]
    schemes = {layer.name: Scheme(bits=4, axis=0)}
    made = round_layers(graph, schemes, method=method, batches=images)[layer.name]
    assert made.values.shape == layer.shape
    assert made.grid.scale.shape == (layer.channels,)
    weight = graph.constant(layer.weight)
    assert np.abs(made.real() - weight).max() <= np.abs(weight).max()


def test_ten_runs_give_the_same_integers(correlated):
    graph, batches = correlated
    schemes = {layer.name: Scheme(bits=4, axis=0) for layer in graph.layers}
    for method in ("gptq", "adaround"):
        runs = [round_layers(graph, schemes, method=method, batches=batches, seed=3) for _ in range(10)]
        assert len({b"".join(weight.values.tobytes() for weight in run.values()) for run in runs}) == 1


def test_an_unknown_method_is_named(correlated):
    graph, batches = correlated
    with pytest.raises(InvalidParameterError, match=r"rounding must be one of nearest, gptq, adaround\. Got 'up'"):
        round_layers(graph, {}, method="up", batches=batches)

import numpy as np
import onnx
import pytest

from halve.techniques.compression.quantization.affine import Scheme
from halve.techniques.compression.quantization.bias_correction import correct_biases
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.post_training import round_weights
from halve.techniques.compression.quantization.runtime import run_logits

MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
dense (float[n, 6] input) => (float[n, 4] logits) <float[6, 4] weight, float[4] bias> {
    logits = Gemm(input, weight, bias)
}
"""


@pytest.fixture
def graph(rng):
    model = onnx.parser.parse_model(MODEL)
    for name, value in (("weight", rng.standard_normal((6, 4))), ("bias", rng.standard_normal(4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    return Graph.load(model.SerializeToString())


def test_the_mean_output_is_what_it_was(graph, rng):
    batches = [{"input": (rng.standard_normal((64, 6)) + 3).astype(np.float32)} for _ in range(2)]
    weights = round_weights(graph, Scheme(bits=3, axis=0))
    (layer,) = graph.layers
    before = run_logits(graph.to_bytes(), batches).mean(axis=0)

    def mean_of_rounded(model):
        rounded = model.copy()
        rounded.set_constant(layer.weight, weights[layer.name].real())
        return run_logits(rounded.to_bytes(), batches).mean(axis=0)

    corrected = correct_biases(graph, weights, batches)
    assert np.abs(mean_of_rounded(graph) - before).max() > 0.1
    np.testing.assert_allclose(mean_of_rounded(corrected), before, atol=1e-4)
    assert not np.array_equal(corrected.constant(layer.bias), graph.constant(layer.bias))


def test_exact_weights_and_layers_without_bias_change_nothing(graph, dense, rng):
    batches = [{"input": rng.standard_normal((8, 6)).astype(np.float32)}]
    assert correct_biases(graph, {}, batches).to_bytes() == graph.to_bytes()
    without = Graph.load(dense(rng.standard_normal((6, 4))))
    weights = round_weights(without, Scheme(bits=3, axis=0))
    assert correct_biases(without, weights, batches).to_bytes() == without.to_bytes()


def test_the_groups_of_a_convolution_have_means_of_their_own(rng):
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    conv (float[n, 4, 5, 5] input) => (float[n, 8, 5, 5] logits) <float[8, 2, 3, 3] weight, float[8] bias> {
        logits = Conv <group = 2, pads = [1, 1, 1, 1]> (input, weight, bias)
    }
    """
    model = onnx.parser.parse_model(text)
    for name, shape in (("weight", (8, 2, 3, 3)), ("bias", (8,))):
        value = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    graph = Graph.load(model.SerializeToString())
    means_of_channels = np.arange(1, 5).reshape(1, 4, 1, 1)
    batches = [{"input": (rng.standard_normal((4, 4, 5, 5)) + means_of_channels).astype(np.float32)}]
    weights = round_weights(graph, Scheme(bits=3, axis=0))
    corrected = correct_biases(graph, weights, batches)
    for each in (graph, corrected):
        each.set_constant("weight", weights[graph.layers[0].name].real())
    means = [run_logits(each.to_bytes(), batches).mean(axis=(0, 2, 3)) for each in (graph, corrected)]
    expected = run_logits(model.SerializeToString(), batches).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(means[1], expected, atol=1e-3)
    assert np.abs(means[0] - expected).max() > 10 * np.abs(means[1] - expected).max()

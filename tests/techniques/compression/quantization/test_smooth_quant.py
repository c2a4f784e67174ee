import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import run_logits
from halve.techniques.compression.quantization.smooth_quant import smooth

BLOCK = """
<ir_version: 8, opset_import: ["" : 18]>
block (float[n, t, 6] input) => (float[n, t, 3] logits)
<float[6] gain, float[6] shift, float[6, 6] w0, float[6, 6] w1, float[6, 3] w2> {
    normal = LayerNormalization <axis = -1> (input, gain, shift)
    left = MatMul (normal, w0)
    right = MatMul (normal, w1)
    gate = Sigmoid (right)
    product = Mul (left, gate)
    sum = Add (product, input)
    logits = MatMul (sum, w2)
}
"""
SHAPES = {"gain": (6,), "shift": (6,), "w0": (6, 6), "w1": (6, 6), "w2": (6, 3)}


def block(seed, *, outlier=30.0):
    rng, model = np.random.default_rng(seed), onnx.parser.parse_model(BLOCK)
    for name, shape in SHAPES.items():
        value = rng.standard_normal(shape).astype(np.float32)
        if name == "gain":
            value[2] *= outlier
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    batches = [{"input": rng.standard_normal((4, 5, 6)).astype(np.float32)} for _ in range(2)]
    return Graph.load(model.SerializeToString()), batches


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
@settings(max_examples=20, deadline=None)
def test_the_model_answers_as_before(seed, alpha):
    graph, batches = block(seed)
    before = run_logits(graph.to_bytes(), batches)
    after = run_logits(smooth(graph, batches, alpha=alpha).graph.to_bytes(), batches)
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())


def test_a_norm_that_only_the_layers_read_is_divided_and_a_shared_sum_is_multiplied():
    graph, batches = block(1)
    found = smooth(graph, batches)
    first, second, last = graph.layers
    assert set(found.folded) == {first.name, second.name}
    assert found.multiplied == (last.name,)
    assert [node.op_type for node in found.graph.proto.graph.node].count("Mul") == 2  # the model's own and the new one
    assert graph.to_bytes() != found.graph.to_bytes(), "the given graph stays as it was"


def test_the_outlier_moves_into_the_weights_by_the_formula():
    graph, batches = block(1)
    found = smooth(graph, batches, alpha=0.5)
    first, second = (next(each for each in graph.layers if each.name == name) for name in found.folded)
    largest = np.abs(np.concatenate([_normal(graph, batch) for batch in batches])).max(axis=(0, 1))
    weights = np.maximum(np.abs(graph.constant(first.weight)).max(axis=1), np.abs(graph.constant(second.weight)).max(1))
    factors = np.sqrt(largest / weights)
    np.testing.assert_allclose(found.graph.constant("gain"), graph.constant("gain") / factors, rtol=1e-4)
    moved = found.graph.constant(first.weight)
    np.testing.assert_allclose(moved, graph.constant(first.weight) * factors[:, None], rtol=1e-4)


def _normal(graph, batch):
    x = batch["input"]
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * graph.constant("gain") + graph.constant("shift")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_alpha_is_between_none_and_all(alpha):
    graph, batches = block(1)
    with pytest.raises(InvalidParameterError, match=r"alpha must be in \(0, 1\)"):
        smooth(graph, batches, alpha=alpha)


def test_the_same_inputs_give_the_same_bytes():
    graph, batches = block(3)
    assert len({smooth(graph, batches).graph.to_bytes() for _ in range(3)}) == 1

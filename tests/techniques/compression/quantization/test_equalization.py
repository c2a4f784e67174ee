import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.techniques.compression.quantization.equalization import equalize, find_pairs
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import run_logits

CHAIN = """
<ir_version: 8, opset_import: ["" : 18]>
chain (float[n, 2, 6, 6] input) => (float[n, 3] logits)
<float[4, 2, 3, 3] w0, float[4] b0, float[4, 1, 3, 3] w1, float[4] b1, float[5, 4, 1, 1] w2, float[5, 3] w3> {
    a = Conv <pads = [1, 1, 1, 1]> (input, w0, b0)
    c = Relu (a)
    d = Conv <group = 4, pads = [1, 1, 1, 1]> (c, w1, b1)
    e = Relu (d)
    f = Conv (e, w2)
    g = Relu (f)
    h = ReduceMean <keepdims = 0> (g, axes)
    logits = MatMul (h, w3)
}
"""
SHAPES = {"w0": (4, 2, 3, 3), "b0": (4,), "w1": (4, 1, 3, 3), "b1": (4,), "w2": (5, 4, 1, 1), "w3": (5, 3)}


def filled(text, shapes, seed):
    rng, model = (
        np.random.default_rng(seed),
        onnx.parser.parse_model(text),
    )
    for name, shape in shapes.items():
        value = rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 1, (shape[0], *[1] * (len(shape) - 1)))
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    return Graph.load(model.SerializeToString())


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_model_answers_as_before_and_channels_are_equal(seed):
    graph = filled(CHAIN, SHAPES, seed)
    equalized = equalize(graph)
    inputs = [{"input": np.random.default_rng(seed).standard_normal((8, 2, 6, 6)).astype(np.float32)}]
    before, after = run_logits(graph.to_bytes(), inputs), run_logits(equalized.to_bytes(), inputs)
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())
    pairs = find_pairs(equalized)
    assert [(len(first.shape), second.groups) for first, second in pairs] == [(4, 4), (4, 1)]
    first, second = pairs[1]
    left = np.abs(equalized.rows(first)).max(axis=1)
    right = np.abs(equalized.rows(second)).max(axis=0)
    np.testing.assert_allclose(left, right, rtol=0.01)


@pytest.mark.parametrize("between", ["Gelu", "Sigmoid", "Tanh"])
def test_what_is_not_homogeneous_is_left_alone(between, rng):
    opset = 20 if between == "Gelu" else 18
    text = f"""
    <ir_version: 9, opset_import: ["" : {opset}]>
    dense (float[n, 6] input) => (float[n, 4] logits) <float[6, 5] w0, float[5, 4] w1> {{
        a = MatMul (input, w0)
        b = {between} (a)
        logits = MatMul (b, w1)
    }}
    """
    model = onnx.parser.parse_model(text)
    for name, shape in (("w0", (6, 5)), ("w1", (5, 4))):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        )
    graph = Graph.load(model.SerializeToString())
    assert find_pairs(graph) == []
    assert equalize(graph).to_bytes() == graph.to_bytes()


def test_a_tensor_that_somebody_else_reads_is_left_alone(exported):
    graph = Graph.load(exported / "residual.onnx")
    names = {(first.name, second.name) for first, second in find_pairs(graph)}
    assert all(len(graph.consumers(second.input)) == 1 for _, second in find_pairs(graph))
    assert not any(first == graph.layers[0].name for first, _ in names), "the residual sum reads it too"


def test_channels_of_zeros_stay(dense):
    weights = np.ones((4, 3))
    weights[:, 1] = 0
    graph = Graph.load(dense(weights, np.ones((3, 2))))
    equalized = equalize(graph)
    assert np.isfinite(equalized.constant("w0")).all()
    assert not equalized.constant("w0")[:, 1].any()

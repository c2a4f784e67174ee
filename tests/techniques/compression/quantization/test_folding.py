import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import open_session


def operators(graph):
    return [node.op_type for node in graph.proto.graph.node]


def assert_same_answers(content, feed):
    expected = open_session(content).run(None, feed)
    actual = open_session(Graph.load(content).to_bytes()).run(None, feed)
    for before, after in zip(expected, actual, strict=True):
        assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


NORMALIZED = """normalized (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w%s)
    b = BatchNormalization <epsilon = %g> (a, gamma, beta, mean, variance)
    y = Relu (b)
}"""


@given(st.booleans(), st.sampled_from([1e-5, 1e-3]), st.integers(0, 1000))
@settings(max_examples=20)
def test_batch_normalization_becomes_part_of_the_convolution(onnx_model, has_bias, epsilon, seed):
    rng = np.random.default_rng(seed)
    constants = {name: rng.standard_normal(4).astype(np.float32) for name in ("b0", "gamma", "beta", "mean")}
    constants["w"] = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    constants["variance"] = rng.uniform(0.01, 3, 4).astype(np.float32)
    if not has_bias:
        del constants["b0"]
    content = onnx_model(NORMALIZED % (", b0" if has_bias else "", epsilon), **constants)
    assert operators(Graph.load(content)) == ["Conv", "Relu"]
    assert_same_answers(content, {"x": rng.standard_normal((2, 3, 6, 6)).astype(np.float32)})


def test_golden_fold(onnx_model):
    text = """g (float[N, 1, 1, 1] x) => (float[N, 1, 1, 1] y) {
        a = Conv (x, w, b) y = BatchNormalization <epsilon = 0.0> (a, gamma, beta, mean, variance) }"""
    values = {"b": 1, "gamma": 6, "beta": 5, "mean": 3, "variance": 4}
    constants = {name: np.array([value], np.float32) for name, value in values.items()}
    graph = Graph.load(onnx_model(text, w=np.full((1, 1, 1, 1), 2, np.float32), **constants))
    # 6 (2 x + 1 - 3) / 2 + 5 = 6 x - 1
    assert graph.constant(graph.layers[0].weight).item() == 6
    assert graph.constant(graph.layers[0].bias).item() == -1


def test_factors_and_summands_behind_products_are_folded(onnx_model, rng):
    text = """g (float[N, 2, 4, 4] x) => (float[N, 5] y) {
        a = Conv (x, w) c = Mul (a, scale) d = Add (shift, c) e = ReduceMean <keepdims = 0> (d, places)
        f = Gemm (e, u) h = Mul (row, f) i = Add (h, row) y = BatchNormalization (i, row, row, row, positive)
    }"""
    shapes = {"w": (3, 2, 2, 2), "scale": (1, 3, 1, 1), "shift": (3, 1, 1), "u": (3, 5), "row": (5,)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    constants["positive"] = rng.uniform(0.5, 2, 5).astype(np.float32)
    content = onnx_model(text, **constants, places=np.array([2, 3]))
    assert operators(Graph.load(content)) == ["Conv", "ReduceMean", "Gemm"]
    assert_same_answers(content, {"x": rng.standard_normal((2, 2, 4, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv (x, w) b = BatchNormalization (a, v, v, v, p) y = Add (a, b)",  # The product is read elsewhere too.
        "a = Relu (x) y = BatchNormalization (a, v, v, v, p)",  # Nothing before it to fold into.
        "a = Conv (x, w) y = Mul (a, wide)",  # A factor per place, not per channel.
    ],
)
def test_what_cannot_be_folded_stays(onnx_model, rng, body):
    constants = {"w": rng.standard_normal((2, 2, 1, 1)), "v": rng.standard_normal(2), "p": np.array([0.5, 2.0])}
    constants["wide"] = rng.standard_normal((1, 1, 4, 4))
    used = {name: value.astype(np.float32) for name, value in constants.items() if name in body}
    content = onnx_model(f"g (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {{ {body} }}", **used)
    before = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert operators(Graph.load(content)) == before
    assert_same_answers(content, {"x": rng.standard_normal((2, 2, 4, 4)).astype(np.float32)})


def test_weights_behind_other_nodes_are_computed_once(onnx_model, rng):
    text = """g (float[N, 4] x) => (float[N, 3] y) {
        scale = Constant <value_float = 0.5> ()
        w1 = Identity (w) w2 = Transpose (w1) w3 = Mul (w2, scale) kept = Identity (x) y = MatMul (kept, w3)
    }"""
    content = onnx_model(text, w=rng.standard_normal((3, 4)).astype(np.float32))
    graph = Graph.load(content)
    assert operators(graph) == ["MatMul"]
    assert len(graph.proto.graph.initializer) == 1
    assert_same_answers(content, {"x": rng.standard_normal((2, 4)).astype(np.float32)})


def test_constants_that_would_fill_the_file_are_left(onnx_model):
    text = "g (float[N, 4] x) => (float[N, 4] y) { big = Expand (one, shape) y = Mul (x, big) }"
    content = onnx_model(text, one=np.ones(1, np.float32), shape=np.array([1, 4]))
    assert operators(Graph.load(content)) == ["Expand", "Mul"]


def test_dropout_is_gone_and_outputs_keep_their_names(onnx_model, rng):
    text = """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        a, mask = Dropout (x) b = Relu (a) y = Identity (b) z = Identity (x)
    }"""
    graph = Graph.load(onnx_model(text))
    assert graph.outputs == ("y", "z")
    assert operators(graph) == ["Relu", "Identity", "Identity"]
    assert_same_answers(onnx_model(text), {"x": rng.standard_normal((2, 4)).astype(np.float32)})


@given(
    st.sampled_from([0.5, 1.0]), st.sampled_from([2.0, 1.0]), st.booleans(), st.sampled_from([(3,), (1, 3), (1,), ()])
)
@settings(max_examples=20)
def test_factors_of_gemm_are_multiplied_in(onnx_model, alpha, beta, transposed, shape):
    rng = np.random.default_rng(3)
    options = f"alpha = {alpha}, beta = {beta}, transB = {int(transposed)}"
    text = f"g (float[N, 4] x) => (float[N, 3] y) {{ y = Gemm <{options}> (x, w, b) }}"
    weight = rng.standard_normal((3, 4) if transposed else (4, 3)).astype(np.float32)
    content = onnx_model(text, w=weight, b=rng.standard_normal(shape).astype(np.float32))
    (layer,) = Graph.load(content).layers
    assert Graph.load(content).constant(layer.bias).shape == (3,)
    assert layer.output_axis == (0 if transposed else 1)
    assert_same_answers(content, {"x": rng.standard_normal((2, 4)).astype(np.float32)})


def test_a_bias_per_row_makes_no_layer(onnx_model, rng):
    content = onnx_model(
        "g (float[2, 4] x) => (float[2, 3] y) { y = Gemm (x, w, b) }",
        w=rng.standard_normal((4, 3)).astype(np.float32),
        b=rng.standard_normal((2, 3)).astype(np.float32),
    )
    assert Graph.load(content).layers == ()
    assert_same_answers(content, {"x": rng.standard_normal((2, 4)).astype(np.float32)})


def test_exported_networks_answer_as_before(exported, images, tokens):
    for name, batches in (("residual", images), ("encoder", tokens)):
        assert_same_answers((exported / f"{name}.onnx").read_bytes(), batches[0])


def test_normalization_before_a_convolution_stays(tmp_path, rng):
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 2)).eval()
    network[0].running_mean += 1
    batch = {"x": rng.standard_normal((4, 2, 4, 4)).astype(np.float32)}
    export_onnx(network, batch, tmp_path / "m.onnx")
    assert "BatchNormalization" in operators(Graph.load(tmp_path / "m.onnx"))
    assert_same_answers((tmp_path / "m.onnx").read_bytes(), batch)

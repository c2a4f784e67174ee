from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import (
    ACTIVATIONS,
    WEIGHTS,
    QuantizedTensor,
    fake_quantize,
    grid_of_range,
    integer_matmul,
    quantize,
    quantize_tensor,
)
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.grids import is_convolutional, static_grids
from halve.techniques.compression.quantization.post_training import round_weights
from halve.techniques.compression.quantization.qdq import needed_grids, packed_tensor, write_qdq
from halve.techniques.compression.quantization.runtime import open_session


def run(content, feed):
    return open_session(content).run(None, feed)[0]


def written(graph, batches, *, weight_bits=8, activation_bits=8, per_channel=True):
    scheme = replace(WEIGHTS, bits=weight_bits, axis=0 if per_channel else None)
    activations = replace(ACTIVATIONS, bits=activation_bits)
    return write_qdq(
        graph,
        weights=round_weights(graph, scheme),
        activations=static_grids(graph, batches, scheme=activations),
        only_products=not is_convolutional(graph),
    )


NETWORK = """network (float[N, 2, 8, 8] x) => (float[N, 3] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, bias) b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1], group = 4> (b, v, bias) d = Add (b, c) e = Relu (d)
    f = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (e)
    g = Conv (f, u) h = Clip (g, zero, six)
    j = Concat <axis = 1> (h, f) k = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (j)
    i = Flatten (k) y = Gemm (i, t, row)
}"""


@pytest.fixture
def network(onnx_model, rng):
    """Every operator that has an 8-bit kernel, in one network."""
    shapes = {"w": (4, 2, 3, 3), "bias": (4,), "v": (4, 1, 3, 3), "u": (4, 4, 1, 1), "t": (32, 3), "row": (3,)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return Graph.load(onnx_model(NETWORK, **weights, zero=np.float32(0), six=np.float32(6)))


@pytest.fixture
def batches(rng):
    return [{"x": rng.standard_normal((16, 2, 8, 8)).astype(np.float32)} for _ in range(2)]


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_runtime_runs_integer_kernels_only(network, batches, fused, per_channel):
    content = written(network, batches, per_channel=per_channel)
    found = fused(content)
    kernels = {"QLinearConv": 3, "QLinearAdd": 1, "QLinearConcat": 1, "QLinearAveragePool": 1, "QGemm": 1}
    kernels |= {"NhwcMaxPool": 1}
    assert {name: found[name] for name in kernels} == kernels
    assert found["QuantizeLinear"] == 1
    assert not {"Conv", "Relu", "Clip", "Add", "Gemm", "DequantizeLinear", "Concat"} & set(found)


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "error"), [(8, 8, 0.02), (7, 8, 0.03), (4, 8, 0.2), (4, 4, 0.3)]
)
def test_answers_stay_near(network, batches, weight_bits, activation_bits, error):
    content = written(network, batches, weight_bits=weight_bits, activation_bits=activation_bits)
    expected = run(network.to_bytes(), batches[0])
    actual = run(content, batches[0])
    assert 0 < np.sqrt(np.mean((actual - expected) ** 2)) < error * np.std(expected)


def test_few_bits_run_on_the_same_kernels_and_take_less_space(network, batches, fused):
    eight, four = written(network, batches), written(network, batches, weight_bits=4, activation_bits=4)
    kernels = {name: count for name, count in fused(eight).items() if name.startswith("Q") and name != "QuantizeLinear"}
    found = fused(four)
    assert {name: found[name] for name in kernels} == kernels
    assert found["Cast"] == 0
    # x, b, c, e, h, and the two joints; not MaxPool and Flatten, whose numbers are in range already.
    assert found["Clip"] == 7
    types = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(four).graph.initializer}
    packed = [name for name, kind in types.items() if kind == onnx.TensorProto.INT4]
    assert packed == ["w_packed", "v_packed", "u_packed", "t_packed"]
    assert onnx.load_from_string(four).opset_import[0].version == 21
    assert onnx.load_from_string(eight).opset_import[0].version == 18


def test_the_file_is_valid_onnx_and_the_same_each_time(network, batches):
    before = network.to_bytes()
    contents = {written(network, batches, weight_bits=bits) for bits in (4, 8) for _ in range(3)}
    assert len(contents) == 2
    for content in contents:
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert network.to_bytes() == before


@given(st.integers(2, 8), st.integers(2, 8), st.booleans(), st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_product_is_the_oracles(onnx_model, weight_bits, activation_bits, per_channel, seed):
    rng = np.random.default_rng(seed)
    weight, x = rng.standard_normal((16, 5)).astype(np.float32), rng.standard_normal((7, 16)).astype(np.float32)
    graph = Graph.load(onnx_model("g (float[N, 16] x) => (float[N, 5] y) { y = MatMul (x, w) }", w=weight))
    scheme = replace(WEIGHTS, bits=min(weight_bits, 7), axis=1 if per_channel else None)
    right = quantize_tensor(weight, scheme)
    grid = grid_of_range(float(x.min()), float(x.max()), replace(ACTIVATIONS, bits=activation_bits))
    content = write_qdq(graph, weights={graph.layers[0].name: right}, activations={"x": grid})
    expected = integer_matmul(QuantizedTensor(values=quantize(x, grid), grid=grid), right)
    np.testing.assert_allclose(run(content, {"x": x}), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_bias_is_added_in_integers(onnx_model, rng, fused, transposed):
    weight, bias = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    weight[:, 1] = 0
    text = f"g (float[N, 4] x) => (float[N, 3] y) {{ y = Gemm <transB = {transposed}> (x, w, b) }}"
    graph = Graph.load(onnx_model(text, w=weight.T if transposed else weight, b=bias))
    x = rng.standard_normal((7, 4)).astype(np.float32)
    grid = grid_of_range(-3, 3, ACTIVATIONS)
    weights = round_weights(graph, replace(WEIGHTS, bits=7, axis=0))
    content = write_qdq(graph, weights=weights, activations={"x": grid})
    assert fused(content) == {"QuantizeLinear": 1, "QGemm": 1}
    (rounded,) = weights.values()
    exact = fake_quantize(x, grid) @ (rounded.real().T if transposed else rounded.real()) + bias
    step = float(grid.scale * rounded.grid.scale.max())
    np.testing.assert_allclose(run(content, {"x": x}), exact, atol=step, rtol=1e-5)
    assert run(content, {"x": x})[:, 1] == pytest.approx(bias[1], rel=1e-6)


def test_products_with_three_axes_run_in_integers(exported, tokens, fused):
    graph = Graph.load(exported / "encoder.onnx")
    found = fused(written(graph, tokens))
    operators = [layer.operator for layer in graph.layers]
    assert found["MatMulIntegerToFloat"] == operators.count("MatMul")
    assert found["QGemm"] == operators.count("Gemm")


def test_weight_only_layers_keep_their_activations(network, batches, fused):
    weights = round_weights(network, replace(WEIGHTS, bits=4, axis=0))
    convolutions = {layer.name: weights[layer.name] for layer in network.layers if layer.operator == "Conv"}
    content = write_qdq(network, weights=convolutions, activations={})
    found = fused(content)
    assert (found["Conv"] + found["FusedConv"], found["QuantizeLinear"]) == (3, 0)
    rounded = network.copy()
    for layer in rounded.layers[:3]:
        rounded.set_constant(layer.weight, weights[layer.name].real())
    np.testing.assert_allclose(run(content, batches[0]), run(rounded.to_bytes(), batches[0]), rtol=1e-4, atol=1e-4)


def test_onnxruntime_makes_block_products_of_dense_layers_with_integer_weights_alone(onnx_model, rng, fused):
    """Why `write_qdq` warns of them: that kernel rounds activations as it runs, unless the session says otherwise."""
    weight = rng.standard_normal((64, 32)).astype(np.float32)
    graph = Graph.load(onnx_model("g (float[N, 64] x) => (float[N, 32] y) { y = MatMul (x, w) }", w=weight))
    content = write_qdq(graph, weights=round_weights(graph, replace(WEIGHTS, axis=0)), activations={})
    assert fused(content) == {"MatMulNBits": 1}


def test_readers_outside_see_fp32_where_only_products_are_rounded(onnx_model, rng):
    text = "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul (x, w) y = Add (a, x) }"
    weight, x = np.zeros((4, 4), np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    graph = Graph.load(onnx_model(text, w=weight))
    coarse = grid_of_range(-4, 4, replace(ACTIVATIONS, bits=2))
    arguments = {"weights": round_weights(graph), "activations": {"x": coarse}}
    assert np.array_equal(run(write_qdq(graph, **arguments, only_products=True), {"x": x}), x)
    rounded = run(write_qdq(graph, **arguments, only_products=False), {"x": x})
    np.testing.assert_allclose(rounded, fake_quantize(x, coarse), rtol=1e-6)


def test_a_clip_that_the_grid_does_not_do_stays(onnx_model, rng):
    text = "g (float[N, 4] x) => (float[N, 3] y) { a = Clip (x, low, high) y = MatMul (a, w) }"
    limits = {"low": np.float32(0), "high": np.float32(1)}
    graph = Graph.load(onnx_model(text, w=rng.standard_normal((4, 3)).astype(np.float32), **limits))
    for reach, operators in ((1.0, 0), (2.0, 1)):
        content = write_qdq(
            graph, weights=round_weights(graph), activations={"a": grid_of_range(0, reach, ACTIVATIONS)}
        )
        assert [node.op_type for node in onnx.load_from_string(content).graph.node].count("Clip") == operators


def test_names_that_the_model_uses_already_are_not_taken(onnx_model, rng):
    text = """g (float[N, 4] x_scale) => (float[N, 3] x_quantized) {
        x = Relu (x_scale) x_quantized = MatMul (x, x_rounded) }"""
    graph = Graph.load(onnx_model(text, x_rounded=rng.standard_normal((4, 3)).astype(np.float32)))
    grid = grid_of_range(0, 3, ACTIVATIONS)
    x = rng.uniform(0, 3, (5, 4)).astype(np.float32)
    content = write_qdq(graph, weights=round_weights(graph), activations={"x": grid})
    assert run(content, {"x_scale": x}) == pytest.approx(run(graph.to_bytes(), {"x_scale": x}), abs=0.1)


def test_a_model_whose_meaning_depends_on_the_opset_is_not_packed(onnx_model, rng):
    text = """g (float[N, 4, 2, 2] x) => (float[N, 4, 2, 2] y) {
        a = GridSample <mode = "bilinear"> (x, places) y = Conv (a, w) }"""
    weight = rng.standard_normal((4, 4, 1, 1)).astype(np.float32)
    graph = Graph.load(onnx_model(text, w=weight, places=np.zeros((1, 2, 2, 2), np.float32)))
    content = write_qdq(graph, weights=round_weights(graph, replace(WEIGHTS, bits=4)), activations={})
    assert onnx.load_from_string(content).opset_import[0].version == 18
    assert run(content, {"x": rng.standard_normal((1, 4, 2, 2)).astype(np.float32)}).shape == (1, 4, 2, 2)


def test_packed_integers_golden():
    tensor = packed_tensor("w", np.array([1, -1, 7], np.int8))
    # 1 in the low half, -1 = 0xF in the high one; then 7 and nothing.
    assert tensor.raw_data == bytes([0xF1, 0x07])


def test_grids_that_no_integer_kernel_touches_are_not_needed(network, batches):
    grids = static_grids(network, batches)
    layers = [layer.name for layer in network.layers]
    assert set(needed_grids(network, weights=layers, activations=grids)) == set(grids)
    # The first convolution alone: what it reads and writes. The last product alone: what it reads.
    assert set(needed_grids(network, weights=layers[:1], activations=grids)) == {"x", "b"}
    assert set(needed_grids(network, weights=layers[3:], activations=grids)) == {"i"}
    assert needed_grids(network, weights=[], activations=grids) == {}


def test_layers_left_in_fp32_leave_a_model_that_runs(network, batches, fused):
    weights, grids = round_weights(network, replace(WEIGHTS, axis=0)), static_grids(network, batches)
    expected = run(network.to_bytes(), batches[0])
    for layer in network.layers:
        some = {name: weight for name, weight in weights.items() if name != layer.name}
        needed = needed_grids(network, weights=some, activations=grids)
        content = write_qdq(network, weights=some, activations=needed)
        found = fused(content)
        assert found["QLinearConv"] + found["QGemm"] == 3
        assert np.sqrt(np.mean((run(content, batches[0]) - expected) ** 2)) < 0.02 * np.std(expected)


@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        ({"shape": (5, 4)}, r"weights\['product'\] must be of shape \(4, 5\). Got \(5, 4\)"),
        ({"axis": 0}, r"weights\['product'\] must be on a grid of one scale, or one per index of axis 1. Got 0"),
        ({"group_size": 2}, r"weights\['product'\] must be on a symmetric grid without groups"),
        ({"symmetric": False}, r"weights\['product'\] must be on a symmetric grid without groups"),
        ({"name": "other"}, r"weights must be named like layers, \['product'\]. Got 'other'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(onnx_model, rng, weight, problem):
    options = {"shape": (4, 5), "name": "product", **weight}
    shape, name = options.pop("shape"), options.pop("name")
    model = onnx.load_from_string(
        onnx_model("g (float[N, 4] x) => (float[N, 5] y) { y = MatMul (x, w) }", w=np.ones((4, 5), np.float32))
    )
    model.graph.node[0].name = "product"
    graph = Graph.load(model.SerializeToString())
    rounded = quantize_tensor(rng.uniform(1, 2, shape).astype(np.float32), replace(WEIGHTS, narrow=False, **options))
    with pytest.raises(InvalidParameterError, match=problem):
        write_qdq(graph, weights={name: rounded}, activations={})


def test_activations_that_do_not_fit_are_refused(network, batches):
    grid = grid_of_range(0, 1, ACTIVATIONS)
    with pytest.raises(InvalidParameterError, match=r"activations must be named like tensors of the model. Got 'zzz'"):
        write_qdq(network, weights={}, activations={"zzz": grid})
    per_channel = grid_of_range(np.zeros(2), np.ones(2), replace(ACTIVATIONS, axis=1))
    with pytest.raises(InvalidParameterError, match=r"activations\['x'\] must be of one scale. Got \(2,\)"):
        write_qdq(network, weights={}, activations={"x": per_channel})


def test_integers_outside_their_grid_are_refused(network):
    weights = round_weights(network)
    name, first = next(iter(weights.items()))
    scheme = replace(first.grid.scheme, bits=4)
    wrong = QuantizedTensor(values=first.values, grid=replace(first.grid, scheme=scheme))
    with pytest.raises(InvalidParameterError, match=r"must be integers from -7 to 7. Got"):
        write_qdq(network, weights={name: wrong}, activations={})

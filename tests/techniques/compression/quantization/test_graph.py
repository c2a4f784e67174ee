import numpy as np
import onnx
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.calibration import record
from halve.techniques.compression.quantization.graph import Graph


@pytest.fixture
def products(rng, onnx_model):
    """A grouped and a dilated convolution, a MatMul with an Add, a transposed Gemm."""
    text = """
    products (float[N, 4, 9, 9] x) => (float[N, 3] y) {
        a = Conv <group = 4, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w0, b0)
        c = Conv <dilations = [2, 2]> (a, w1)
        d = Reshape (c, flat)
        e = MatMul (d, w2)
        f = Add (b2, e)
        y = Gemm <transB = 1> (f, w3, b3)
    }
    """
    shapes = {"w0": (8, 1, 3, 3), "b0": (8,), "w1": (5, 8, 2, 2), "w2": (45, 6), "b2": (6,), "w3": (3, 6), "b3": (3,)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return onnx_model(text, **constants, flat=np.array([-1, 45]))


@pytest.fixture
def images4(rng):
    return [{"x": rng.standard_normal((2, 4, 9, 9)).astype(np.float32)}]


def test_layers_and_what_they_are(products):
    graph = Graph.load(products)
    found = [(layer.operator, layer.input, layer.output, layer.bias, layer.groups) for layer in graph.layers]
    assert found == [
        ("Conv", "x", "a", "b0", 4),
        ("Conv", "a", "c", None, 1),
        ("MatMul", "d", "e", "b2", 1),
        ("Gemm", "f", "y", "b3", 1),
    ]
    assert [(layer.shape, layer.output_axis, layer.channels) for layer in graph.layers] == [
        ((8, 1, 3, 3), 0, 8),
        ((5, 8, 2, 2), 0, 5),
        ((45, 6), 1, 6),
        ((3, 6), 0, 3),
    ]
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))


def test_input_rows_times_rows_are_the_product(products, images4):
    graph = Graph.load(products)
    tensors = [name for layer in graph.layers for name in (layer.input, layer.output)]
    (values,) = record(graph, images4, tensors)
    for layer in graph.layers:
        inputs = graph.input_rows(layer, values[layer.input])
        weights = np.split(graph.rows(layer), layer.groups)
        product = np.concatenate([x @ w.T for x, w in zip(inputs, weights, strict=True)], axis=1)
        if layer.bias is not None and layer.operator != "MatMul":
            product += graph.constant(layer.bias)
        expected = values[layer.output]
        if layer.operator == "Conv":
            expected = np.moveaxis(expected, 1, -1)
        np.testing.assert_allclose(product, expected.reshape(-1, layer.channels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_rows_go_back_to_where_they_came_from(products, kind):
    graph = Graph.load(products)
    for layer in graph.layers:
        stored = graph.constant(layer.weight).astype(kind)
        assert np.array_equal(graph.from_rows(layer, graph.rows(layer, stored)), stored)
        assert graph.from_rows(layer, graph.rows(layer, stored)).dtype == kind


def test_constants_are_set_in_a_copy_only(products):
    graph = Graph.load(products)
    copy = graph.copy()
    copy.set_constant("b0", np.ones(8, np.float64))
    assert copy.constant("b0").tolist() == [1] * 8
    assert copy.constant("b0").dtype == np.float32
    assert not np.any(graph.constant("b0") == 1)
    assert graph.is_constant("b0")
    assert not graph.is_constant("x")
    with pytest.raises(InvalidParameterError, match=r"constant 'b0' must be of shape \(8,\). Got \(7,\)"):
        graph.set_constant("b0", np.ones(7, np.float32))
    with pytest.raises(InvalidParameterError, match=r"constant must be the name of an initializer. Got 'zzz'"):
        graph.constant("zzz")


def test_who_writes_and_who_reads(products):
    graph = Graph.load(products)
    assert graph.producer("a").op_type == "Conv"
    assert graph.producer("x") is None
    assert [node.op_type for node in graph.consumers("a")] == ["Conv"]
    assert graph.consumers("y") == []
    assert graph.node(graph.layers[2].name).op_type == "MatMul"


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul (x, x)",  # Two activations.
        "y = MatMul (w, x)",  # The constant on the left.
        "y = Gemm <transA = 1> (x, w)",  # Rows are columns.
        "y = MatMul (x, batched)",  # Another weight for each index.
    ],
)
def test_other_products_are_no_layers(body, rng, onnx_model):
    shape = "1, 4, 4" if "batched" in body else "4, 4"
    text = f"g (float[4, 4] x) => (float[{shape}] y) {{ {body} }}"
    weight = rng.standard_normal((4, 4)).astype(np.float32)
    used = {name: value for name, value in (("w", weight), ("batched", weight[None])) if name in body}
    assert Graph.load(onnx_model(text, **used)).layers == ()


def test_the_same_model_gives_the_same_bytes(exported):
    contents = {Graph.load(exported / "encoder.onnx").to_bytes() for _ in range(3)}
    assert len(contents) == 1
    onnx.checker.check_model(onnx.load_from_string(contents.pop()), full_check=True)

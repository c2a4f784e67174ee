import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halve.errors import ModelError
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import open_session

DENSE = "dense (float[N, 4] x) => (float[N, 3] y) { y = MatMul (x, w) }"


def answers(content, feed):
    return open_session(content).run(None, feed)[0]


@pytest.fixture
def weight(rng):
    return rng.standard_normal((4, 3)).astype(np.float32)


@pytest.fixture
def feed(rng):
    return {"x": rng.standard_normal((5, 4)).astype(np.float32)}


def test_nothing_tells_who_made_the_file(onnx_model, weight):
    model = onnx.load_from_string(onnx_model(DENSE, w=weight))
    plain = Graph.load(model.SerializeToString()).to_bytes()
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = "/home/me"
    model.producer_name, model.graph.name = "pytorch", "main_graph"
    helper.set_model_props(model, {"date": "today"})
    assert Graph.load(model.SerializeToString()).to_bytes() == plain


def test_every_node_gets_a_name_of_its_own(onnx_model, weight):
    model = onnx.load_from_string(
        onnx_model("g (float[N, 4] x) => (float[N, 4] y) {a = Relu (x) b = Relu(a) y = Relu(b)}")
    )
    for node, name in zip(model.graph.node, ("same", "same", ""), strict=True):
        node.name = name
    assert [node.name for node in Graph.load(model.SerializeToString()).proto.graph.node] == [
        "same",
        "same_2",
        "Relu_2",
    ]


def test_each_layer_has_a_weight_of_its_own(onnx_model, feed, rng):
    square, bias = rng.standard_normal((4, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    text = """twice (float[N, 4] x) => (float[N, 4] y) {
        a = Gemm (x, w, b) c = Gemm <transB = 1> (a, w, b) d = MatMul (c, w) y = Add (d, b)
    }"""
    content = onnx_model(text, w=square, b=bias)
    graph = Graph.load(content)
    names = [name for layer in graph.layers for name in (layer.weight, layer.bias)]
    assert len(set(names)) == len(names) == 6
    assert np.array_equal(answers(graph.to_bytes(), feed), answers(content, feed))
    graph.set_constant(graph.layers[0].weight, np.zeros((4, 4)))
    assert np.array_equal(graph.constant(graph.layers[2].weight), square)


def test_an_embedding_that_is_a_weight_too_keeps_its_table(onnx_model, rng):
    table = rng.standard_normal((6, 4)).astype(np.float32)
    text = "tied (int64[N] x) => (float[N, 6] y) { a = Gather (t, x) y = Gemm <transB = 1> (a, t) }"
    graph = Graph.load(onnx_model(text, t=table))
    graph.set_constant(graph.layers[0].weight, np.zeros((6, 4)))
    assert np.array_equal(graph.constant(graph.producer("a").input[0]), table)


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_old_operator_sets_are_converted(rng, feed, opset):
    shapes = {"w": (4, 3), "b": (3,)}
    constants = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="gemm"),
        helper.make_node("Unsqueeze", ["a"], ["u"], axes=[0]),
        helper.make_node("Squeeze", ["u"], ["y"], axes=[0]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c]) for n, c in (("x", 4), ("y", 3))]
    # Before version 4 of the format, constants are inputs too.
    inputs = [values[0], *(helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())]
    graph = helper.make_graph(nodes, "old", inputs, [values[1]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    loaded = Graph.load(model.SerializeToString())
    assert loaded.inputs == ("x",)
    assert loaded.proto.opset_import[0].version == 13
    assert [layer.operator for layer in loaded.layers] == ["Gemm"]
    np.testing.assert_allclose(
        answers(loaded.to_bytes(), feed), answers(model.SerializeToString(), feed), rtol=1e-5, atol=1e-6
    )


def test_functions_are_inlined(onnx_model, weight, feed):
    model = onnx.load_from_string(onnx_model(DENSE, w=weight))
    body = helper.make_node("MatMul", ["a", "b"], ["c"])
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("mine", "Linear", ["a", "b"], ["c"], [body], opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Linear", "mine"
    graph = Graph.load(model.SerializeToString())
    assert [layer.operator for layer in graph.layers] == ["MatMul"]
    np.testing.assert_allclose(answers(graph.to_bytes(), feed), feed["x"] @ weight, rtol=1e-5, atol=1e-6)


def test_weights_may_lie_beside_the_file(tmp_path, onnx_model, feed, rng):
    weight = rng.standard_normal((4, 3)).astype(np.float32)
    model = onnx.load_from_string(onnx_model(DENSE, w=weight))
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = Graph.load(path)
    assert np.array_equal(graph.constant(graph.layers[0].weight), weight)
    assert b"weights.bin" not in graph.to_bytes()
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is not a readable ONNX file"):
        Graph.load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["w", "b"])
def test_weights_that_are_no_numbers_are_named(onnx_model, weight, bad, name):
    constants = {"w": weight, "b": np.ones(3, np.float32)}
    constants[name].flat[1] = bad
    with pytest.raises(ModelError, match=f"weight {name!r} of the model must be finite. Got NaN or infinity"):
        Graph.load(onnx_model("g (float[N, 4] x) => (float[N, 3] y) {y = Gemm (x, w, b)}", **constants))


def test_a_mask_may_be_infinite(onnx_model):
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = Add (x, mask) }"
    graph = Graph.load(onnx_model(text, mask=np.array([0, 0, -np.inf, 0], np.float32)))
    assert graph.constant("mask")[2] == -np.inf


def test_a_quantized_model_is_refused(onnx_model):
    text = "g (uint8[N] x, float s) => (float[N] y) { y = DequantizeLinear (x, s) }"
    with pytest.raises(ModelError, match=r"the model must be fp32 to be quantized. It holds DequantizeLinear"):
        Graph.load(onnx_model(text))


@pytest.mark.parametrize("content", [b"no graph", b""])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(ModelError, match="the model is not a readable ONNX file"):
        Graph.load(content)

import numpy as np
import onnx
import onnxruntime
import pytest

from halve.techniques.compression.quantization.affine import ACTIVATIONS, dequantize, grid_of_tensor
from halve.techniques.compression.quantization.calibration import record
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.runtime import open_session
from halve.techniques.compression.quantization.single_layer import cut_out, touched


def pieces(graph, batches):
    values = next(record(graph, batches, sorted(touched(graph))))
    return [cut_out(graph, layer, values) for layer in graph.layers]


@pytest.fixture(params=["residual", "encoder", "dense"])
def network(request, exported, images, tokens, dense, rng):
    """A graph and its batches, of each kind."""
    if request.param == "dense":
        weights = rng.standard_normal((16, 24)), rng.standard_normal((24, 24)), rng.standard_normal((24, 4))
        return Graph.load(dense(*weights)), [{"input": rng.standard_normal((6, 16)).astype(np.float32)}]
    return Graph.load(exported / f"{request.param}.onnx"), {"residual": images, "encoder": tokens}[request.param]


def test_a_layer_alone_answers_as_in_its_network(network):
    graph, batches = network
    for piece in pieces(graph, batches):
        (given,) = open_session(piece.graph.to_bytes()).run(None, dict(piece.feed))
        np.testing.assert_allclose(given, piece.written, rtol=1e-4, atol=1e-5)


def test_in_integers_it_answers_nearly_so(network):
    graph, batches = network
    for piece in pieces(graph, batches):
        content, feed = piece.in_integers(7)
        (given,) = open_session(content).run(None, feed)
        if piece.writes_integers:
            assert given.dtype == np.uint8
            given = dequantize(given, grid_of_tensor(piece.written, ACTIVATIONS))
        assert all(array.dtype == (np.uint8 if piece.reads_integers else np.float32) for array in feed.values())
        error = np.sqrt(np.mean((given - piece.written) ** 2)) / piece.written.std()
        assert error < 0.06


def test_what_is_timed_is_an_integer_kernel(network, tmp_path):
    graph, batches = network
    for piece in pieces(graph, batches):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(piece.in_integers(8)[0], options, providers=["CPUExecutionProvider"])
        operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
        assert operators & {"QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm"}, piece.name
        assert not operators & {"Conv", "MatMul", "Gemm", "FusedConv", "FusedMatMul", "FusedGemm"}, piece.name


def test_between_products_there_are_bytes(dense, rng):
    graph = Graph.load(dense(*(rng.standard_normal((8, 8)) for _ in range(3))))
    edges = [(p.reads_integers, p.writes_integers) for p in pieces(graph, [{"input": np.ones((2, 8), np.float32)}])]
    assert edges == [(False, True), (True, True), (True, False)]


def test_a_normalization_between_needs_fp32(exported, tokens):
    found = pieces(Graph.load(exported / "encoder.onnx"), tokens)
    assert not any(piece.reads_integers for piece in found)


def test_a_kind_is_what_speed_depends_on(dense, rng):
    graph = Graph.load(dense(*(rng.standard_normal((8, 8)) for _ in range(4))))
    one, two = ([p.kind for p in pieces(graph, [{"input": np.ones((n, 8), np.float32)}])] for n in (1, 2))
    assert len(set(one)) == 3
    assert one[1] == one[2]
    assert not set(one) & set(two)

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Scheme
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.grids import (
    CONVOLUTIONAL_OPERATORS,
    DENSE_OPERATORS,
    OBSERVERS,
    activation_tensors,
    default_operators,
    static_grids,
)

NETWORK = """network (float[N, 2, 8, 8] x) => (float[N, 3] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, v) d = Add (b, c) e = Relu (d)
    f = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (e)
    g = Conv (f, u) h = Clip (g, zero, six)
    i = Flatten (h) y = Gemm (i, t)
}"""


@pytest.fixture
def network(onnx_model, rng):
    shapes = {"w": (4, 2, 3, 3), "v": (4, 4, 3, 3), "u": (4, 4, 1, 1), "t": (64, 3)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return Graph.load(onnx_model(NETWORK, **weights, zero=np.float32(0), six=np.float32(6)))


@pytest.fixture
def batches(rng):
    return [{"x": rng.standard_normal((4, 2, 8, 8)).astype(np.float32)} for _ in range(2)]


def test_between_convolutions_everything_stays_in_bytes(network):
    assert default_operators(network) == CONVOLUTIONAL_OPERATORS
    # Not a, d and g: the ReLU or Clip behind them has the grid. Not y: logits are not rounded.
    assert activation_tensors(network) == ("x", "b", "c", "e", "f", "h", "i")


def test_only_what_products_read_is_rounded_where_there_is_no_convolution(exported):
    graph = Graph.load(exported / "encoder.onnx")
    assert default_operators(graph) == DENSE_OPERATORS
    assert set(activation_tensors(graph)) == {layer.input for layer in graph.layers}


def test_operators_may_be_left_out(network):
    assert activation_tensors(network, ("Gemm",)) == ("i",)
    assert activation_tensors(network, ("Conv", "Relu")) == ("x", "b", "c", "f", "g")


def test_a_relu_makes_the_grid_start_at_zero(network, batches):
    grids = static_grids(network, batches)
    assert {name: int(grids[name].zero_point) for name in ("b", "e", "h")} == {"b": 0, "e": 0, "h": 0}
    assert float(grids["h"].scale) <= np.float32(6 / 255)
    assert int(grids["x"].zero_point) > 0


def test_what_carries_numbers_carries_their_grid(network, batches):
    grids = static_grids(network, batches)
    assert grids["f"] is grids["e"]
    assert grids["i"] is grids["h"]


def test_of_the_bits_asked_for_carriers_the_fewest_count(network, batches):
    grids = static_grids(network, batches, bits={"i": 4, "x": 6})
    found = {name: grid.scheme.bits for name, grid in grids.items()}
    assert found == {"x": 6, "b": 8, "c": 8, "e": 8, "f": 8, "h": 4, "i": 4}


@pytest.mark.parametrize("observer", list(OBSERVERS))
def test_every_observer_covers_most_of_what_flows(network, batches, observer):
    widest = static_grids(network, batches)
    for name, grid in static_grids(network, batches, observer=observer).items():
        assert 0 < float(grid.scale) <= 1.001 * float(widest[name].scale)


def test_signed_bytes(network, batches):
    scheme = Scheme(symmetric=False, signed=True, narrow=False)
    grids = static_grids(network, batches, scheme=scheme)
    assert int(grids["b"].zero_point) == -128


def test_unknown_observers_are_refused(network, batches):
    with pytest.raises(InvalidParameterError, match=r"observer must be one of minmax, .*entropy. Got 'guess'"):
        static_grids(network, batches, observer="guess")


def test_a_sum_with_a_tensor_outside_stays_in_fp32(onnx_model, rng):
    text = """g (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {
        a = Conv (x, w) b = Sigmoid (a) c = Add (a, b) y = Conv (c, v)
    }"""
    weights = {name: rng.standard_normal((2, 2, 1, 1)).astype(np.float32) for name in "wv"}
    # c is rounded for the second convolution alone; b is not.
    assert activation_tensors(Graph.load(onnx_model(text, **weights))) == ("x", "a", "c")


def test_joined_tensors_stay_in_bytes(onnx_model, rng):
    text = """g (float[N, 2, 4, 4] x) => (float[N, 1, 4, 4] y) {
        a = Conv (x, w) b = Conv (x, v) c = Concat <axis = 1> (a, b) d = AveragePool <kernel_shape = [1, 1]> (c)
        y = Conv (d, u)
    }"""
    weights = {name: rng.standard_normal((2, 2, 1, 1)).astype(np.float32) for name in "wv"}
    weights["u"] = rng.standard_normal((1, 4, 1, 1)).astype(np.float32)
    assert activation_tensors(Graph.load(onnx_model(text, **weights))) == ("x", "a", "b", "c", "d")

import numpy as np

from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.layer_error import layer_errors
from halve.techniques.compression.quantization.recipes import StaticRecipe, carry_out


def test_the_error_is_that_of_the_layer_s_own_product(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((8, 5))))
    batches = [{"input": rng.standard_normal((64, 8)).astype(np.float32)}]
    plan = carry_out(StaticRecipe(weight_bits=4, edge_bits=4), graph, batches=batches)
    (layer,) = graph.layers
    grid, inputs = plan.activations[layer.input], batches[0]["input"]
    seen = (np.clip(np.rint(inputs / grid.scale) + grid.zero_point, 0, 255) - grid.zero_point) * grid.scale
    exact, actual = inputs @ graph.constant("w0"), seen @ plan.weights[layer.name].real()
    expected = np.sqrt(np.mean((actual - exact) ** 2)) / exact.std()
    np.testing.assert_allclose(layer_errors(plan, batches)[layer.name], expected, rtol=1e-4)


def test_fewer_bits_err_more_in_every_layer(exported, images):
    graph = Graph.load(exported / "residual.onnx")
    errors = {}
    for bits in (4, 6, 8):
        plan = carry_out(StaticRecipe(weight_bits=bits, edge_bits=bits), graph, batches=images)
        errors[bits] = layer_errors(plan, images)
    for layer in graph.layers:
        assert 0 < errors[8][layer.name] < errors[6][layer.name] < errors[4][layer.name] < 1

import numpy as np

from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.sampling import SAMPLED_ROWS, sample_inputs


def test_rows_are_inputs_of_the_layer_and_never_more_than_wanted(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((4, 3)), rng.standard_normal((3, 2))))
    batches = [{"input": rng.standard_normal((1500, 4)).astype(np.float32)} for _ in range(4)]
    seen = sample_inputs(graph, graph.layers, batches)
    (first,), (second,) = (seen[layer.name] for layer in graph.layers)
    assert len(first) == len(second) == SAMPLED_ROWS
    given = {row.tobytes() for batch in batches for row in batch["input"]}
    assert all(row.tobytes() in given for row in first)
    np.testing.assert_allclose(second, np.maximum(first @ graph.constant("w0"), 0), atol=1e-5)


def test_few_rows_are_all_taken_and_no_layers_are_no_work(dense, rng):
    graph = Graph.load(dense(rng.standard_normal((4, 3))))
    batches = [{"input": rng.standard_normal((5, 4)).astype(np.float32)}]
    (rows,) = sample_inputs(graph, graph.layers, batches)[graph.layers[0].name]
    np.testing.assert_array_equal(rows, batches[0]["input"])
    assert sample_inputs(graph, [], []) == {}

"""How far each layer alone moves its output when it runs in integers: for the table, not for decisions."""

from collections.abc import Mapping

import numpy as np

from halve.techniques.compression.quantization.affine import FloatArray, fake_quantize
from halve.techniques.compression.quantization.agreement import relative_rmse
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.recipes import Plan
from halve.techniques.compression.quantization.sampling import sample_inputs


def layer_errors(plan: Plan, batches: Batches) -> dict[str, float]:
    """Return the relative RMSE of every quantized layer's output, by layer name.

    sqrt(mean (x_hat W_hat - x W)^2) / std(x W), with x the layer's fp32 inputs: errors that earlier layers made
    are not in it, so the numbers do not add up to the model's.
    """
    layers = [layer for layer in plan.graph.layers if layer.name in plan.weights]
    inputs = sample_inputs(plan.graph, layers, batches)
    return {layer.name: _error(plan, layer, inputs) for layer in layers}


def _error(plan: Plan, layer: Layer, inputs: Mapping[str, list[FloatArray]]) -> float:
    exact_rows = _per_group(plan.graph, layer, None)
    rounded_rows = _per_group(plan.graph, layer, plan.weights[layer.name].real())
    grid = plan.activations.get(layer.input)
    exact, actual = [], []
    for rows, weight, rounded in zip(inputs[layer.name], exact_rows, rounded_rows, strict=True):
        seen = rows if grid is None else fake_quantize(rows, grid)
        exact.append((rows @ weight.T).ravel())
        actual.append((seen @ rounded.T).ravel())
    return relative_rmse(np.concatenate(exact), np.concatenate(actual))


def _per_group(graph: Graph, layer: Layer, stored: FloatArray | None) -> list[FloatArray]:
    return np.split(graph.rows(layer) if stored is None else graph.rows(layer, stored), layer.groups)

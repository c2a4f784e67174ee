"""Bias correction: rounding moves the mean of a layer's output, and a bias can move it back.

    E[W_hat x] = E[W x] - (W - W_hat) E[x],    so (W - W_hat) E[x] is added to the bias

with E[x] the mean input of the layer in the fp32 model. It costs nothing when the model runs.

It does not help on 8 bits, where rounding hardly moves the mean. Layers without a bias stay as they are.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2 (the empirical kind).
"""

from collections.abc import Mapping

import numpy as np

from halve.techniques.compression.quantization.affine import FloatArray, QuantizedTensor
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.sampling import sample_inputs


def correct_biases(graph: Graph, weights: Mapping[str, QuantizedTensor], batches: Batches) -> Graph:
    """Return the model with biases that take back the mean error of rounded weights.

    Args:
        graph: The fp32 model; it is not changed.
        weights: What weights are rounded to, in their stored layout, by layer name.
        batches: Calibration inputs.

    Raises:
        InvalidParameterError: If the batches cannot be used.
    """
    corrected = graph.copy()
    layers = [layer for layer in corrected.layers if layer.name in weights and layer.bias is not None]
    means = {
        name: [rows.mean(axis=0, dtype=np.float64) for rows in groups]
        for name, groups in sample_inputs(graph, layers, batches).items()
    }
    for layer in layers:
        if layer.bias is not None:
            moved = _moved(graph, layer, weights[layer.name].real(), means[layer.name])
            corrected.set_constant(layer.bias, graph.constant(layer.bias) + moved)
    return corrected


def _moved(graph: Graph, layer: Layer, rounded: FloatArray, means: list[np.ndarray]) -> FloatArray:
    """Return (W - W_hat) E[x] per output channel."""
    lost = graph.rows(layer).astype(np.float64) - graph.rows(layer, rounded)
    parts = [part @ mean for part, mean in zip(np.split(lost, layer.groups), means, strict=True)]
    return np.concatenate(parts).astype(np.float32)

"""Cross-layer equalization: channels between two layers get weights of one size, and the model answers as before.

A ReLU is positively homogeneous, relu(s x) = s relu(x) for s > 0. So channel i between two layers can be divided by
any s_i > 0 in the first and multiplied by it in the second:

    W2 relu(W1 x + b1) = (W2 S) relu(S^-1 W1 x + S^-1 b1)

With r1_i and r2_i the largest weights of the channel on both sides, s_i = sqrt(r1_i / r2_i) makes them equal:
no channel is then lost to a scale that a larger one needs. Chains of layers are swept until nothing moves.

Only pairs with nothing but a ReLU between them, and no other reader: for GELU, ReLU6 or a residual branch it would not
be exact. With one scale per output channel the first layer has little to gain; the second still has.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1.
"""

import numpy as np

from halve.techniques.compression.quantization.affine import FloatArray
from halve.techniques.compression.quantization.graph import Graph, Layer

MOST_SWEEPS, SETTLED = 20, 1e-3
"""Sweeps end when no factor is further from 1 than this."""


def equalize(graph: Graph) -> Graph:
    """Return the model with equalized pairs of layers; without such pairs, a copy."""
    equalized = graph.copy()
    pairs = find_pairs(equalized)
    for _ in range(MOST_SWEEPS):
        moved = max((_equalize(equalized, first, second) for first, second in pairs), default=0.0)
        if moved <= SETTLED:
            break
    return equalized


def find_pairs(graph: Graph) -> list[tuple[Layer, Layer]]:
    """Return the layers between which nothing but a ReLU stands, and nobody else reads."""
    by_input = {layer.input: layer for layer in graph.layers}
    pairs = []
    for layer in graph.layers:
        tensor = _only_way(graph, layer.output, "Add") if layer.operator == "MatMul" and layer.bias else layer.output
        tensor = _only_way(graph, tensor, "Relu")
        readers = graph.consumers(tensor)
        second = by_input.get(tensor)
        if second is not None and len(readers) == 1 and tensor not in graph.outputs:
            pairs.append((layer, second))
    return pairs


def _only_way(graph: Graph, tensor: str, operator: str) -> str:
    """Return what an operator makes of a tensor that it alone reads; else the tensor itself."""
    readers = graph.consumers(tensor)
    if len(readers) == 1 and readers[0].op_type == operator and tensor not in graph.outputs:
        return str(readers[0].output[0])
    return tensor


def _equalize(graph: Graph, first: Layer, second: Layer) -> float:
    """Equalize one pair; return the largest |log s|."""
    rows, columns = graph.rows(first), _by_input_channel(graph, second)
    left, right = np.abs(rows).max(axis=1), np.abs(columns).max(axis=(1, 3)).ravel()
    if left.shape != right.shape:  # a reshape in the layer's own padding or groups: not channel by channel
        return 0.0
    used = (left > 0) & (right > 0)
    factors = np.sqrt(np.where(used, left, 1) / np.where(used, right, 1)).astype(np.float32)
    graph.set_constant(first.weight, graph.from_rows(first, rows / factors[:, None]))
    if first.bias is not None:
        graph.set_constant(first.bias, graph.constant(first.bias) / factors)
    scaled = columns * factors.reshape(columns.shape[0], 1, -1, 1)
    graph.set_constant(second.weight, graph.from_rows(second, scaled.reshape(second.channels, -1)))
    return float(np.abs(np.log(factors)).max())


def _by_input_channel(graph: Graph, layer: Layer) -> FloatArray:
    """Return the weight as (groups, output channels per group, input channels per group, kernel)."""
    rows = graph.rows(layer)
    kernel = int(np.prod(layer.shape[2:])) if layer.operator == "Conv" else 1
    return rows.reshape(layer.groups, layer.channels // layer.groups, -1, kernel)

"""What layers multiply their weights with, on real inputs: a few thousand rows each, enough for methods that look."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halve.techniques.compression.quantization.affine import FloatArray
from halve.techniques.compression.quantization.calibration import Batches, record
from halve.techniques.compression.quantization.graph import Graph, Layer

SAMPLED_ROWS = 2048
"""Input rows per layer that GPTQ and AdaRound look at: a convolution sees one per pixel, far more than they need."""


def sample_inputs(graph: Graph, layers: Sequence[Layer], batches: Batches) -> dict[str, list[FloatArray]]:
    """Return up to SAMPLED_ROWS rows that each layer multiplies its weight with, per group, evenly spread."""
    if not layers:
        return {}
    share = max(1, SAMPLED_ROWS // len(batches))
    seen: dict[str, list[list[FloatArray]]] = {layer.name: [] for layer in layers}
    for tensors in record(graph, batches, sorted({layer.input for layer in layers})):
        for layer in layers:
            groups = graph.input_rows(layer, tensors[layer.input])
            seen[layer.name].append([rows[_spread(len(rows), share)] for rows in groups])
    return {name: [np.concatenate(parts) for parts in zip(*groups, strict=True)] for name, groups in seen.items()}


def _spread(length: int, wanted: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, min(length, wanted)).astype(np.int64))

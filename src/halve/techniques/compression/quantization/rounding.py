"""Which way each weight is rounded: to nearest, or so that the layer's output moves least (GPTQ, AdaRound).

Round to nearest is best for each weight alone. What counts is the layer's output, where the errors of weights
that see correlated inputs add up: GPTQ and AdaRound look at real inputs and round some weights the other way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.adaround import adaround
from halve.techniques.compression.quantization.affine import (
    FloatArray,
    Grid,
    QuantizedTensor,
    Scheme,
    grid_of_tensor,
    quantize,
)
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.gptq import gptq, hessian
from halve.techniques.compression.quantization.graph import Graph, Layer
from halve.techniques.compression.quantization.grid_search import search_grid
from halve.techniques.compression.quantization.sampling import sample_inputs

Rounding = Literal["nearest", "gptq", "adaround"]
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "gptq", "adaround")

WIDE_BITS = 7
"""From here on a grid covers the whole range: with so many steps, clipping costs more than it saves."""


def round_layers(
    graph: Graph,
    schemes: Mapping[str, Scheme],
    *,
    method: Rounding,
    batches: Batches,
    seed: int = 0,
) -> dict[str, QuantizedTensor]:
    """Return the weights of layers as integers, in their stored layout, by layer name.

    Args:
        graph: The fp32 model.
        schemes: Per layer, symmetric; `axis` 0 stands for one scale per output channel, None for one scale.
        method: How to round. Without the layer's inputs (`nearest`) `batches` is not looked at.
        batches: Calibration inputs.
        seed: Of AdaRound's minibatches.

    Raises:
        InvalidParameterError: If the method is not known.
    """
    if method not in ROUNDINGS:
        raise InvalidParameterError("rounding", rule=f"one of {', '.join(ROUNDINGS)}", value=method)
    layers = [layer for layer in graph.layers if layer.name in schemes]
    inputs = {} if method == "nearest" else sample_inputs(graph, layers, batches)
    rounded = {}
    for layer in layers:
        rows, scheme = graph.rows(layer), schemes[layer.name]
        parts = [
            _rounded(part, scheme, method=method, inputs=seen, seed=seed)
            for part, seen in _groups(layer, rows, inputs.get(layer.name), scheme)
        ]
        rounded[layer.name] = _stored(graph, layer, parts)
    return rounded


def _groups(
    layer: Layer, rows: FloatArray, inputs: list[FloatArray] | None, scheme: Scheme
) -> list[tuple[FloatArray, FloatArray | None]]:
    """Return the parts that are rounded on their own: one per group of a grouped convolution that has inputs."""
    if inputs is None:
        return [(rows, None)]
    if scheme.axis is None and layer.groups > 1:
        raise InvalidParameterError(f"scheme of {layer.name}", rule="one scale per channel", value="one per tensor")
    return list(zip(np.split(rows, layer.groups), inputs, strict=True))


def _rounded(
    rows: FloatArray, scheme: Scheme, *, method: Rounding, inputs: FloatArray | None, seed: int
) -> QuantizedTensor:
    is_wide = scheme.bits >= WIDE_BITS
    if inputs is None:
        grid = grid_of_tensor(rows, scheme) if is_wide else search_grid(rows, scheme)
        return QuantizedTensor(values=quantize(rows, grid), grid=grid)
    if method == "gptq":
        return gptq(rows, hessian([inputs]), scheme, scale_search=not is_wide)
    importance = np.mean(np.square(inputs, dtype=np.float64), axis=0)
    grid = grid_of_tensor(rows, scheme) if is_wide else search_grid(rows, scheme, importance=importance)
    return adaround(rows, inputs, grid, seed=seed)


def _stored(graph: Graph, layer: Layer, parts: Sequence[QuantizedTensor]) -> QuantizedTensor:
    """Join the groups and go back to the layout in which the model stores the weight."""
    values = graph.from_rows(layer, np.concatenate([part.values for part in parts]))
    grid = parts[0].grid
    if grid.scheme.axis is None:
        return QuantizedTensor(values=values, grid=grid)
    scale = np.concatenate([part.grid.scale for part in parts])
    zero_point = np.concatenate([part.grid.zero_point for part in parts])
    scheme = replace(grid.scheme, axis=layer.output_axis)
    return QuantizedTensor(values=values, grid=Grid(scheme=scheme, scale=scale, zero_point=zero_point))

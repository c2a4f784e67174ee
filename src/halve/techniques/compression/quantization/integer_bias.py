"""The bias of a product in integers: int32 on the grid of the products, s_x s_w, so that it is added as it is.

Two channels do not fit as they are. Where weights are tiny beside the bias, the bias would take more than 32 bits:
their scale is raised until it fits, which moves the weights by less than what fp32 could tell beside that bias.
Where all weights are zero the grid says nothing about the bias: the scale is chosen for the bias alone.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.techniques.compression.quantization.affine import SMALLEST_SCALE, IntArray, QuantizedTensor

LARGEST_BIAS = 2.0**30
"""Steps: half of what 32 bits hold; the other half is for the products."""

EXACT_BIAS = 2.0**24
"""Steps for a bias without weights: as many as a float32 has."""


def integer_bias(
    weight: QuantizedTensor, bias: NDArray[Any], activation_scale: float
) -> tuple[QuantizedTensor, IntArray]:
    """Return the weight on scales that the bias fits, and the bias in steps of activation_scale times those scales.

    Args:
        weight: Symmetric, one scale, or one per output channel along `scheme.axis`.
        bias: (output channels,), finite.
        activation_scale: s_x > 0, of the layer's input.
    """
    scale, axis = weight.grid.scale.astype(np.float64), weight.grid.scheme.axis
    size = np.abs(bias.astype(np.float64))
    if axis is None:
        size = size.max(initial=0.0)
        is_zero = not np.any(weight.values)
    else:
        others = tuple(index for index in range(weight.values.ndim) if index != axis % weight.values.ndim)
        is_zero = ~np.any(weight.values, axis=others)
    fitting = np.where(is_zero, size / EXACT_BIAS, np.maximum(scale, size / LARGEST_BIAS / activation_scale))
    chosen = np.where(is_zero, np.where(size > 0, fitting / activation_scale, scale), fitting)
    # The product of both scales must be a normal float32 too.
    chosen = np.maximum(chosen, SMALLEST_SCALE * max(1.0, 1 / activation_scale)).astype(np.float32)
    if np.any(chosen != weight.grid.scale):
        grid = replace(weight.grid, scale=np.asarray(chosen))
        ratio = weight.grid.expanded(weight.values.shape)[0] / grid.expanded(weight.values.shape)[0]
        values = np.rint(weight.values * ratio).astype(weight.values.dtype)
        weight = QuantizedTensor(values=values, grid=grid)
    steps = np.rint(bias.astype(np.float64) / (activation_scale * weight.grid.scale.astype(np.float64)))
    limit = 2.0**31 - 1
    return weight, np.clip(steps, -limit, limit).astype(np.int32)

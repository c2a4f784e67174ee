"""Better grids than a tensor's own range: clip a little, so that the steps are finer where most numbers are.

A grid from minimum to maximum never clips, and pays for it with wide steps. On few bits a narrower grid errs less in
all: the few numbers at the ends lose more, the many inside gain. For every scale on its own, the sum

    sum_j h_j (w_j - w_hat_j)^2,    h_j >= 0: how much the output depends on weight j, E[x_j^2] of its input

is lowered in two ways, and the best of all that was tried is kept, the range itself included:

1. the range is shrunk by fixed factors (as in Nagel et al. 2021, arXiv:2106.08295, section 3.1: MSE ranges);
2. with the integers q held, the sum is a parabola in s, least at s = sum h w (q - z) / sum h (q - z)^2; then the
   integers are rounded anew (Lloyd's alternation; for asymmetric grids z is fitted as well, by a regression of w on q).

It does not help on 7 or 8 bits, where the range is best or nearly so.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import (
    SMALLEST_SCALE,
    FloatArray,
    Grid,
    Scheme,
    check_shape,
    dequantize,
    grid_of_range,
    quantize,
)

FACTORS = tuple(np.linspace(1.0, 0.3, 29).tolist())
"""By which the range is shrunk: steps of 0.025."""

REFITS = 4
"""Alternations of the fit; more change nothing that matters."""

CHUNK = 1 << 19
"""Numbers looked at together: they fit into a cache."""


def search_grid(rows: FloatArray, scheme: Scheme, *, importance: ArrayLike | None = None) -> Grid:
    """Return a grid for the rows with a weighted squared error at most that of the grid of their range.

    Args:
        rows: The weight, float32 (out, in), finite.
        scheme: One scale (axis None), one per row (axis 0), or one per group along `in`.
        importance: h_j >= 0 per column, (in,); None counts all alike.

    Raises:
        InvalidParameterError: If a shape does not fit, or a value is not finite or negative.
    """
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InvalidParameterError("rows", rule="finite, of shape (out, in)", value=rows.shape)
    check_shape(rows.shape, scheme)
    if scheme.axis not in (None, 0, -2):
        raise InvalidParameterError("scheme.axis", rule="None or 0, the rows", value=scheme.axis)
    weights = np.ones(rows.shape[1]) if importance is None else np.asarray(importance, np.float64)
    if weights.shape != rows.shape[1:] or not (np.isfinite(weights) & (weights >= 0)).all():
        raise InvalidParameterError("importance", rule="one finite number >= 0 per column", value=weights.shape)
    weights = weights / max(float(weights.max()), SMALLEST_SCALE)  # Sums of squares then stay in float32.
    spread = np.broadcast_to(weights.astype(np.float32), rows.shape)
    groups, group_weights = _groups(rows, scheme), _groups(spread, scheme)
    by_row = replace(scheme, axis=0, group_size=None)
    size = max(1, CHUNK // groups.shape[1])
    parts = [
        _search(groups[start : start + size], group_weights[start : start + size], by_row)
        for start in range(0, len(groups), size)
    ]
    shape: tuple[int, ...] = ()
    if scheme.group_size is not None:
        shape = (len(rows), len(groups) // len(rows))
    elif scheme.axis is not None:
        shape = (len(rows),)
    return Grid(
        scheme=scheme,
        scale=np.concatenate([part.scale for part in parts]).reshape(shape),
        zero_point=np.concatenate([part.zero_point for part in parts]).reshape(shape),
    )


def _groups(rows: FloatArray, scheme: Scheme) -> FloatArray:
    """Return what shares a scale as one row each; a last group that is short is filled up with zeros."""
    if scheme.group_size is not None:
        missing = -rows.shape[1] % scheme.group_size
        return np.pad(rows, ((0, 0), (0, missing))).reshape(-1, scheme.group_size)
    return rows.reshape(1, -1) if scheme.axis is None else rows


def _search(weight: FloatArray, importance: FloatArray, scheme: Scheme) -> Grid:
    low, high = weight.min(axis=1), weight.max(axis=1)
    best = grid_of_range(low, high, scheme)
    error = _error(weight, importance, best)
    for factor in FACTORS[1:]:
        best, error = _better(weight, importance, best, error, grid_of_range(low * factor, high * factor, scheme))
    for _ in range(REFITS):
        best, error = _better(weight, importance, best, error, _fitted(weight, importance, best))
        if not scheme.symmetric:
            for step in (-1, 1):
                zero_point = np.clip(best.zero_point + step, scheme.lowest, scheme.highest).astype(np.int32)
                best, error = _better(weight, importance, best, error, replace(best, zero_point=zero_point))
    return best


def _error(weight: FloatArray, importance: FloatArray, grid: Grid) -> NDArray[np.float32]:
    """Return sum_j h_j (w_j - w_hat_j)^2 per row."""
    difference = dequantize(quantize(weight, grid), grid) - weight
    with np.errstate(over="ignore", under="ignore"):
        error: NDArray[np.float32] = np.einsum("gi,gi,gi->g", difference, difference, importance)
    return error


def _better(
    weight: FloatArray, importance: FloatArray, best: Grid, error: NDArray[np.float32], other: Grid
) -> tuple[Grid, NDArray[np.float32]]:
    """Return, row by row, the grid that errs less, and its error; of equals the first."""
    other_error = _error(weight, importance, other)
    is_better = other_error < error
    grid = Grid(
        scheme=best.scheme,
        scale=np.where(is_better, other.scale, best.scale),
        zero_point=np.where(is_better, other.zero_point, best.zero_point),
    )
    return grid, np.where(is_better, other_error, error)


def _fitted(weight: FloatArray, importance: FloatArray, grid: Grid) -> Grid:
    """Return the grid that fits best to the integers that the rows have now."""
    scheme, integers = grid.scheme, quantize(weight, grid).astype(np.float32)
    zero_point = grid.zero_point
    with np.errstate(all="ignore"):  # A row of one integer has no slope: then its grid stays.
        if not scheme.symmetric:
            total = importance.sum(axis=1)
            mean_q = (importance * integers).sum(axis=1) / total
            mean_w = (importance * weight).sum(axis=1) / total
            spread = integers - mean_q[:, None]
            slope = (importance * spread * weight).sum(axis=1) / (importance * spread * spread).sum(axis=1)
            fitted = np.rint(mean_q - mean_w / slope)
            usable = np.isfinite(fitted) & (slope > 0)
            zero_point = np.clip(np.where(usable, fitted, zero_point), scheme.lowest, scheme.highest).astype(np.int32)
        steps = integers - zero_point[:, None]
        scale = (importance * weight * steps).sum(axis=1) / (importance * steps * steps).sum(axis=1)
    usable = np.isfinite(scale) & (scale >= SMALLEST_SCALE)
    return Grid(scheme=scheme, scale=np.where(usable, scale, grid.scale).astype(np.float32), zero_point=zero_point)

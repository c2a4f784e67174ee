"""GPTQ: round the weights of a layer one column at a time; what is left of the row makes up for each error.

A layer computes W x. What counts is not how far the rounded W_hat is from W, but how far its output moves:

    sum over inputs ||(W - W_hat) x||^2 = 1/2 n tr((W - W_hat) H (W - W_hat)^T),    H = 2 sum x x^T / n

Round column j. The least increase of the sum is reached if the columns not yet rounded move by

    W[:, k] -= (W[:, j] - W_hat[:, j]) / R[j, j] * R[j, k],    k > j,  with H^-1 = R^T R, R upper triangular

so one Cholesky factor serves all rows. Columns with the largest H[j, j] go first, while much is left that can move.
GPTQ is greedy: it never comes back to a column. Coordinate descent does: with all other columns held, the best real
value of column j is known, and its nearest integer is taken; every step lowers the sum or leaves it.

It does not help where inputs are uncorrelated (H diagonal: it is round to nearest), where 8 bits leave no error to
speak of, or where the inputs are unlike those to come.

Sources: Frantar et al. 2022, arXiv:2210.17323, section 3; coordinate descent: Behdin et al. 2023, arXiv:2309.01885,
section 3.1.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import (
    FloatArray,
    QuantizedTensor,
    Scheme,
    grid_of_tensor,
    quantize,
)
from halve.techniques.compression.quantization.grid_search import search_grid

Float64Array = NDArray[np.float64]

MOST_DAMPING = 1e3
"""Damping grows tenfold until the Hessian can be factored. Beyond this it is no matrix of real inputs."""


def hessian(inputs: Iterable[FloatArray]) -> Float64Array:
    """Return H = 2 sum x x^T / n over all rows x of all arrays, float64 (in, in).

    Args:
        inputs: Arrays (n, in) of what a layer multiplies its weight with.

    Raises:
        InvalidParameterError: If there is no row, a value is not finite, or the widths differ.
    """
    total: Float64Array | None = None
    count = 0
    for number, rows in enumerate(inputs):
        if rows.ndim != 2 or (total is not None and rows.shape[1] != len(total)):
            width = "in" if total is None else len(total)
            raise InvalidParameterError(f"inputs[{number}]", rule=f"of shape (n, {width})", value=rows.shape)
        if not np.isfinite(rows).all():
            raise InvalidParameterError(f"inputs[{number}]", rule="finite", value="NaN or infinity")
        wide = rows.astype(np.float64)
        total = wide.T @ wide if total is None else total + wide.T @ wide
        count += len(rows)
    if total is None or count == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value=0)
    mean: Float64Array = 2.0 * total / count
    return mean


def output_error(error: NDArray[np.floating], hessian: Float64Array) -> Float64Array:
    """Return the mean squared output error of each row, sum over x of ((w - w_hat) x)^2 / n, float64 (out,).

    Args:
        error: W - W_hat, (out, in).
        hessian: Of the inputs, (in, in).
    """
    wide = error.astype(np.float64)
    squares: Float64Array = np.einsum("oi,oi->o", wide @ hessian, wide) / 2.0
    return squares


def gptq(
    rows: FloatArray,
    hessian: Float64Array,
    scheme: Scheme,
    *,
    damping: float = 0.01,
    block_size: int = 128,
    order_by_activation: bool = True,
    scale_search: bool = False,
    sweeps: int = 4,
) -> QuantizedTensor:
    """Return the rows as integers that move the layer's output little.

    Grids are static: made from the rows as they are, before columns change places. A column whose input is always 0
    (H[j, j] = 0) becomes 0. Every row is at least as good on this Hessian as round to nearest on the same grid: where
    it would not be, round to nearest is taken. The same arguments give the same integers.

    Args:
        rows: The weight, float32 (out, in), finite.
        hessian: 2 sum x x^T / n, float64 (in, in); see `hessian`.
        scheme: One scale (axis None), one per row (axis 0) or one per group along `in`.
        damping: Added to the diagonal, as a share of its mean, >= 0; more where H cannot be factored.
        block_size: Columns whose effect on later blocks is applied in one product; no effect on the result but time.
        order_by_activation: Take columns by falling H[j, j], else from left to right.
        scale_search: Take grids from `search_grid`, weighted by the diagonal, instead of the rows' own range.
        sweeps: Times that coordinate descent goes over all columns afterwards; 0 is plain GPTQ.

    Raises:
        InvalidParameterError: If a shape does not fit, a value is not finite or a number breaks its rule.
    """
    _check(rows, hessian, scheme, damping=damping, block_size=block_size, sweeps=sweeps)
    importance = np.diag(hessian)
    alive = importance > 0
    live_rows = np.where(alive, rows, np.float32(0)).astype(np.float32)
    grid = search_grid(live_rows, scheme, importance=importance) if scale_search else grid_of_tensor(rows, scheme)
    order = np.argsort(-importance, kind="stable") if order_by_activation else np.arange(len(hessian))
    scale, zero_point = grid.expanded(rows.shape)
    weight, ordered = live_rows[:, order].astype(np.float64), hessian[np.ix_(order, order)]
    steps = _Steps(
        scheme,
        scale=np.broadcast_to(scale, rows.shape)[:, order],
        zero_point=np.broadcast_to(zero_point, rows.shape)[:, order],
    )
    rounded = _propagate(weight.copy(), _inverse_factor(ordered, damping), steps, block_size=block_size)
    for _ in range(sweeps):
        rounded = _descend(weight, rounded, ordered, steps, block_size=block_size)
    nearest = steps.all_rounded(weight)
    is_worse = output_error(weight - rounded, ordered) >= output_error(weight - nearest, ordered)
    rounded[is_worse] = nearest[is_worse]
    restored = np.empty(rows.shape, np.float32)
    restored[:, order] = rounded
    # What is on the grid stays there when it is rounded: to integers without a second rule.
    return QuantizedTensor(values=quantize(restored, grid), grid=grid)


class _Steps:
    """Rounding to a grid column by column, with the oracle's float32 arithmetic."""

    def __init__(self, scheme: Scheme, *, scale: FloatArray, zero_point: NDArray[np.int32]) -> None:
        self._scale = np.asfortranarray(scale)
        zero = np.asfortranarray(zero_point).astype(np.float32)
        self._low, self._high = np.float32(scheme.lowest) - zero, np.float32(scheme.highest) - zero

    def rounded(self, column: Float64Array, number: int) -> Float64Array:
        """Return the nearest numbers of the grid to a column, (out,)."""
        return self._round(column, self._scale[:, number], self._low[:, number], self._high[:, number])

    def all_rounded(self, weight: Float64Array) -> Float64Array:
        """Return the nearest numbers of the grid, (out, in)."""
        return self._round(weight, self._scale, self._low, self._high)

    @staticmethod
    def _round(real: Float64Array, scale: FloatArray, low: FloatArray, high: FloatArray) -> Float64Array:
        with np.errstate(over="ignore"):  # Beyond float32 is beyond the grid too.
            steps = np.clip(np.rint(real.astype(np.float32) / scale), low, high)
        nearest: Float64Array = (steps * scale).astype(np.float64)
        return nearest


def _inverse_factor(hessian: Float64Array, damping: float) -> Float64Array:
    """Return R, upper triangular, with R^T R = (H + damping mean(diag H) I)^-1.

    With rows and columns of H in reverse order and L L^T their Cholesky factors, R is L^-1 in reverse order:
    no inverse of H is formed, so little is lost where H is nearly singular.
    """
    from scipy.linalg import solve_triangular

    diagonal = np.diag(hessian)
    alive = diagonal[diagonal > 0]
    mean = float(alive.mean()) if len(alive) else 1.0
    reverse = hessian[::-1, ::-1] / mean
    dead = np.where(diagonal[::-1] > 0, 0.0, 1.0)
    added = damping
    while added <= MOST_DAMPING:
        try:
            lower = np.linalg.cholesky(reverse + np.diag(dead + added))
        except np.linalg.LinAlgError:
            added = max(10 * added, 1e-8)
            continue
        inverse = solve_triangular(lower, np.eye(len(lower)), lower=True)[::-1, ::-1] / np.sqrt(mean)
        return np.ascontiguousarray(inverse)
    raise InvalidParameterError("hessian", rule="positive semidefinite", value="a matrix with negative eigenvalues")


def _propagate(weight: Float64Array, factor: Float64Array, steps: _Steps, *, block_size: int) -> Float64Array:
    """Round column by column and move the columns that follow; weight is used up."""
    rounded = np.empty_like(weight)
    for start in range(0, weight.shape[1], block_size):
        stop = min(start + block_size, weight.shape[1])
        errors = np.empty((len(weight), stop - start))
        for column in range(start, stop):
            rounded[:, column] = steps.rounded(weight[:, column], column)
            error = (weight[:, column] - rounded[:, column]) / factor[column, column]
            errors[:, column - start] = error
            weight[:, column:stop] -= np.outer(error, factor[column, column:stop])
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return rounded


def _descend(
    weight: Float64Array, rounded: Float64Array, hessian: Float64Array, steps: _Steps, *, block_size: int
) -> Float64Array:
    """Give every column in turn its best integers, the others held as they are.

    With D = W - W_hat, the sum is least in column j alone at W_hat[:, j] + (D H)[:, j] / H[j, j], and grows with the
    square of the distance from there: so the nearest number of the grid is the best.
    """
    rounded = rounded.copy()
    for start in range(0, weight.shape[1], block_size):
        block = slice(start, min(start + block_size, weight.shape[1]))
        gradient, inner = (weight - rounded) @ hessian[:, block], hessian[block, block]
        for at in range(inner.shape[1]):
            if inner[at, at] <= 0:
                continue
            column = start + at
            best = steps.rounded(rounded[:, column] + gradient[:, at] / inner[at, at], column)
            gradient -= np.outer(best - rounded[:, column], inner[at])
            rounded[:, column] = best
    return rounded


def _check(
    rows: FloatArray, hessian: Float64Array, scheme: Scheme, *, damping: float, block_size: int, sweeps: int
) -> None:
    if rows.ndim != 2 or rows.size == 0:
        raise InvalidParameterError("rows", rule="of shape (out, in)", value=rows.shape)
    if hessian.shape != (rows.shape[1], rows.shape[1]):
        raise InvalidParameterError("hessian", rule=f"of shape {(rows.shape[1],) * 2}", value=hessian.shape)
    for name, array in (("rows", rows), ("hessian", hessian)):
        if not np.isfinite(array).all():
            raise InvalidParameterError(name, rule="finite", value="NaN or infinity")
    if scheme.axis not in (None, 0, -2):
        raise InvalidParameterError("scheme.axis", rule="None or 0, the rows", value=scheme.axis)
    if not damping >= 0:
        raise InvalidParameterError("damping", rule="at least 0", value=damping)
    if block_size < 1:
        raise InvalidParameterError("block_size", rule="at least 1", value=block_size)
    if sweeps < 0:
        raise InvalidParameterError("sweeps", rule="at least 0", value=sweeps)

"""Affine quantization in NumPy: the oracle that every other implementation is compared with, bit by bit.

A real number r is stored as an integer q on a grid of equal steps, r ~ s (q - z):

    s = (r_max - r_min) / (q_max - q_min)        the scale, one step
    z = round(q_min - r_min / s)                 the zero point, the integer that stands for 0
    q = clamp(round(r / s) + z, q_min, q_max)
    r_hat = s (q - z)

The range is first widened to hold 0, so 0 is always exact: padding and ReLU depend on it. Inside the range,
|r - r_hat| <= s / 2. Symmetric grids have z = 0 and s = max|r| / q_max. Rounding is half to even, as in ONNX
and torch. Arithmetic is float32, division by the scale included, because that is what QuantizeLinear computes.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1; Nagel et al. 2021, arXiv:2106.08295, section 2.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halve.errors import InvalidParameterError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Least scale: a smaller one is a subnormal number, which float32 holds with fewer bits."""

LARGEST = float(np.finfo(np.float32).max) / 2
"""Largest size of a bound of a range, 1.7e38: beyond it the ends of the grid may not be float32 numbers."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Which integers a tensor may use, before its range is known.

    Args:
        bits: 2 to 8.
        symmetric: Whether the zero point is 0. Needs signed.
        signed: Integers from -2^(bits-1), else from 0.
        narrow: Leave the lowest integer out, so that the grid is as wide to both sides. Needs signed.
        axis: One scale per index of this axis of the tensor (channels); None for one scale.
        group_size: One scale per so many neighbours along the last axis; then `axis` is None.
    """

    bits: int = 8
    symmetric: bool = True
    signed: bool = True
    narrow: bool = True
    axis: int | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise InvalidParameterError("bits", rule="2 to 8", value=self.bits)
        if (self.symmetric or self.narrow) and not self.signed:
            raise InvalidParameterError("signed", rule="true where symmetric or narrow", value=self.signed)
        if self.group_size is not None and self.group_size < 1:
            raise InvalidParameterError("group_size", rule="at least 1", value=self.group_size)
        if self.group_size is not None and self.axis is not None:
            raise InvalidParameterError("axis", rule="None where there is a group_size", value=self.axis)

    @property
    def lowest(self) -> int:
        """The least integer of the grid."""
        return int(self.narrow) - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The greatest integer of the grid."""
        return (1 << (self.bits - int(self.signed))) - 1


WEIGHTS = Scheme(bits=8, symmetric=True, signed=True, narrow=True)
"""For weights: no zero point, so none in the inner loop of a product."""

ACTIVATIONS = Scheme(bits=8, symmetric=False, signed=False, narrow=False)
"""For activations: asymmetric, because after a ReLU half of a symmetric grid would never be used."""


def expand(values: Any, scheme: Scheme, shape: tuple[int, ...], repeat: Callable[[Any, int], Any]) -> Any:
    """Return scales or zero points such that they broadcast with a tensor of this shape, in NumPy or torch.

    Args:
        values: An array of either library, as in `Grid`.
        scheme: The integers.
        shape: Of the tensor.
        repeat: Repeats each number along the last axis so many times.
    """
    if scheme.group_size is not None:
        return repeat(values, scheme.group_size)[..., : shape[-1]]
    if scheme.axis is None:
        return values
    view = [1] * len(shape)
    view[scheme.axis] = -1
    return values.reshape(view)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A scheme with its scales and zero points.

    Args:
        scheme: The integers.
        scale: float32, > 0. Shape () for one scale, (channels,) with `scheme.axis`, or the tensor's shape with
            its last axis divided by `group_size` (rounded up).
        zero_point: int32 within the scheme's integers, the shape of scale.
    """

    scheme: Scheme
    scale: FloatArray
    zero_point: IntArray

    def expanded(self, shape: tuple[int, ...]) -> tuple[FloatArray, IntArray]:
        """Return scale and zero point such that they broadcast with a tensor of this shape."""
        repeat = partial(np.repeat, axis=-1)
        return expand(self.scale, self.scheme, shape, repeat), expand(self.zero_point, self.scheme, shape, repeat)


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor:
    """Integers and the grid they are on.

    Args:
        values: int8 where the scheme is signed, else uint8; the shape of the real tensor, unpacked.
        grid: Their meaning.
    """

    values: NDArray[Any]
    grid: Grid

    def real(self) -> FloatArray:
        """Return what the integers stand for, float32."""
        return dequantize(self.values, self.grid)


def grid_of_range(low: ArrayLike, high: ArrayLike, scheme: Scheme) -> Grid:
    """Return the grid that covers [low, high], widened to hold 0.

    A range of nothing but 0 gets scale 1: every number on that grid is exact.

    Args:
        low, high: At most LARGEST in size, low <= high; shape () or one per channel or group, as the scheme wants.
        scheme: The integers.

    Raises:
        InvalidParameterError: If a bound is NaN, infinite or beyond LARGEST, or low is above high.
    """
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    for bound in (bottom, top):
        beyond = ~(np.abs(bound) <= LARGEST)  # NaN is not <= anything.
        if np.any(beyond):
            raise InvalidParameterError("range", rule="finite, within +-1.7e38", value=float(bound[beyond].flat[0]))
    if np.any(bottom > top):
        at = np.flatnonzero(bottom > top)[0]
        raise InvalidParameterError("range", rule="low <= high", value=(float(bottom.flat[at]), float(top.flat[at])))
    bottom, top = np.minimum(bottom, 0.0), np.maximum(top, 0.0)
    if scheme.symmetric:
        scale = np.maximum(-bottom, top) / scheme.highest
    else:
        scale = (top - bottom) / (scheme.highest - scheme.lowest)
    scale = np.where(scale == 0, 1.0, np.maximum(scale, SMALLEST_SCALE)).astype(np.float32)
    zero_point = np.zeros(scale.shape, np.int32)
    if not scheme.symmetric:
        exact = np.rint(scheme.lowest - bottom / scale.astype(np.float64))
        zero_point = np.clip(exact, scheme.lowest, scheme.highest).astype(np.int32)
    return Grid(scheme=scheme, scale=np.asarray(scale), zero_point=np.asarray(zero_point))


def check_shape(shape: tuple[int, ...], scheme: Scheme) -> None:
    """Raise InvalidParameterError unless a tensor of this shape holds a number, and the axis that the scheme names."""
    if 0 in shape:
        raise InvalidParameterError("tensor", rule="at least one number", value=shape)
    axis = -1 if scheme.group_size is not None else scheme.axis
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise InvalidParameterError("tensor", rule=f"of a shape that has axis {axis}", value=shape)


def grid_of_tensor(tensor: FloatArray, scheme: Scheme) -> Grid:
    """Return the grid that covers a tensor's own minimum and maximum, per channel or group if so schemed.

    Raises:
        InvalidParameterError: If the tensor is empty, or not finite, or has not the axis that the scheme names.
    """
    check_shape(tensor.shape, scheme)
    if scheme.group_size is not None:
        starts = np.arange(0, tensor.shape[-1], scheme.group_size)
        low = np.minimum.reduceat(tensor, starts, axis=-1)
        high = np.maximum.reduceat(tensor, starts, axis=-1)
    else:
        axes = None if scheme.axis is None else tuple(i for i in range(tensor.ndim) if i != scheme.axis % tensor.ndim)
        low, high = tensor.min(axis=axes), tensor.max(axis=axes)
    return grid_of_range(low, high, scheme)


def quantize(tensor: FloatArray, grid: Grid) -> NDArray[Any]:
    """Return q = clamp(round(r / s) + z): int8 where the scheme is signed, else uint8.

    NaN has no integer: check before. Infinities go to the ends of the grid.
    """
    scale, zero_point = grid.expanded(tensor.shape)
    with np.errstate(over="ignore"):  # Too large to divide is infinite, and goes to an end.
        steps = np.rint(tensor.astype(np.float32, copy=False) / scale) + zero_point.astype(np.float32)
    clamped: FloatArray = np.clip(steps, grid.scheme.lowest, grid.scheme.highest)
    integers: NDArray[Any] = clamped.astype(np.int8 if grid.scheme.signed else np.uint8)
    return integers


def dequantize(values: NDArray[Any], grid: Grid) -> FloatArray:
    """Return r_hat = s (q - z), float32."""
    scale, zero_point = grid.expanded(values.shape)
    real: FloatArray = (values.astype(np.int32) - zero_point).astype(np.float32) * scale
    return real


def fake_quantize(tensor: FloatArray, grid: Grid) -> FloatArray:
    """Return the tensor rounded to the grid: quantized, then dequantized."""
    return dequantize(quantize(tensor, grid), grid)


def used_integers(low: float, high: float, grid: Grid) -> int:
    """Return how many integers of a grid of one scale stand for a number in [low, high]; the others are wasted."""
    first, last = quantize(np.array([low, high], np.float32), grid).tolist()
    return int(last) - int(first) + 1


def quantize_tensor(tensor: FloatArray, scheme: Scheme) -> QuantizedTensor:
    """Return the tensor on the grid of its own range: round to nearest."""
    grid = grid_of_tensor(tensor, scheme)
    return QuantizedTensor(values=quantize(tensor, grid), grid=grid)


def integer_matmul(left: QuantizedTensor, right: QuantizedTensor) -> FloatArray:
    """Return left @ right computed in integers, as a kernel does it.

    y_ij = s_l s_r (sum_k q_ik p_kj - z_l sum_k p_kj), with q the left integers (rows, k; one scale) and p the right
    ones (k, columns; symmetric, one scale or one per column). The second sum depends on the weights alone,
    so it is computed once. Sums are exact in 32 bits for k up to 2^16.

    Raises:
        InvalidParameterError: If a grid is not as above.
    """
    if left.grid.scale.ndim != 0:
        raise InvalidParameterError("left", rule="on a grid of one scale", value=left.grid.scale.shape)
    if np.any(right.grid.zero_point):
        raise InvalidParameterError("right", rule="on a grid without zero points", value="a zero point")
    if right.grid.scheme.group_size is not None or right.grid.scheme.axis not in (None, 1, -1):
        raise InvalidParameterError("right", rule="on a grid of one scale, or one per column", value=right.grid.scheme)
    left_values, right_values = left.values.astype(np.int32), right.values.astype(np.int32)
    products = left_values @ right_values - left.grid.zero_point * right_values.sum(axis=0, dtype=np.int32)
    real: FloatArray = products.astype(np.float32) * (left.grid.scale * right.grid.scale)
    return real

"""How often numbers of each size were seen, in memory that does not grow with the data.

Bins are as wide as a power of two and their edges are multiples of it, 0 included. When a larger number arrives,
the width doubles and neighbours merge two by two: floor(floor(x / w) / 2) = floor(x / 2w), so no count ever lands in
a wrong bin, and the result depends on which numbers were seen, never on their order or on the batches they came in.
Exact zeros are counted apart: after a ReLU they are many, and every grid holds 0 without error.
"""

import math

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import FloatArray

BINS_PER_SIDE = 8192
"""Bins left of 0, and right of it; the larger side fills more than half of its bins' span. 128 KiB in all."""


class Histogram:
    """Counts of the numbers other than 0, of the zeros, and the exact extremes.

    Attributes:
        low, high: The least and greatest number seen; NaN before the first.
        zeros: How many were exactly 0.
        width: Of one bin, a power of two; 0 before the first number other than 0.
        counts: int64 (2 * BINS_PER_SIDE,); bin i holds numbers in [(i - BINS_PER_SIDE) width, that + width).
    """

    def __init__(self) -> None:
        self.low, self.high = math.nan, math.nan
        self.zeros, self.width = 0, 0.0
        self.counts: NDArray[np.int64] = np.zeros(2 * BINS_PER_SIDE, np.int64)

    @property
    def numbers(self) -> int:
        """How many numbers were seen, zeros included."""
        return self.zeros + int(self.counts.sum())

    def add(self, tensor: FloatArray) -> None:
        """Count every number of a tensor of any shape; an empty one adds nothing.

        Raises:
            InvalidParameterError: If a number is NaN or infinite; then nothing is counted.
        """
        if tensor.size == 0:
            return
        low, high = finite_extremes(tensor)
        self.low, self.high = float(np.fmin(self.low, low)), float(np.fmax(self.high, high))
        other = tensor[tensor != 0].astype(np.float64)
        self.zeros += tensor.size - other.size
        if other.size == 0:
            return
        self._widen(max(-low, high))
        places = np.floor(other / self.width).astype(np.int64) + BINS_PER_SIDE
        self.counts += np.bincount(places, minlength=self.counts.size)

    def require_numbers(self) -> None:
        """Raise InvalidParameterError if no number was seen."""
        require_numbers(self.low)

    def points(self) -> tuple[FloatArray, NDArray[np.int64]]:
        """Return the middles of the bins that are not empty, kept between the extremes, and their counts."""
        filled = np.flatnonzero(self.counts)
        middles = (filled - BINS_PER_SIDE + 0.5) * self.width
        return np.clip(middles, self.low, self.high).astype(np.float32), self.counts[filled]

    def _widen(self, size: float) -> None:
        """Double the width until a number of this size has a bin."""
        needed = math.ldexp(1.0, math.frexp(size)[1]) / BINS_PER_SIDE
        self.width = self.width or needed
        while self.width < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, BINS_PER_SIDE // 2)
            self.width *= 2


def finite_extremes(tensor: FloatArray) -> tuple[float, float]:
    """Return the minimum and maximum of a tensor that is not empty.

    Raises:
        InvalidParameterError: If a number is NaN or infinite.
    """
    low, high = float(tensor.min()), float(tensor.max())
    for extreme in (low, high):
        if not math.isfinite(extreme):
            raise InvalidParameterError("activation", rule="finite", value=extreme)
    return low, high


def require_numbers(extreme: float) -> None:
    """Raise InvalidParameterError if an extreme is still NaN: no number was seen."""
    if math.isnan(extreme):
        raise InvalidParameterError("calibration", rule="at least one number", value="none")

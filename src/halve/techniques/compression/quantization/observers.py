"""Observers: which range of an activation its grid should cover, learned from calibration batches.

A wider range clips less and rounds more, because the steps are wider. Each observer settles that in its own way:

    MinMax            never clips: one outlier sets the step of all
    MovingAverage     follows the extremes of recent batches; for training
    Percentile        clips a fixed share of the numbers
    MeanSquaredError  the least mean of (r - r_hat)^2, clipping and rounding weighed alike
    Entropy           the least information lost, KL(before || after), which ignores how far clipped numbers were

All but MovingAverage see the same data alike in any order. None keeps the data: at most one `Histogram`.

Sources: Jacob et al. 2018, arXiv:1712.05877, section 3.1 (moving average); Migacz 2017, "8-bit inference with
TensorRT" (entropy); Nagel et al. 2021, arXiv:2106.08295, section 3.1 (mean squared error).
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import FloatArray, Scheme, fake_quantize, grid_of_range
from halve.techniques.compression.quantization.histogram import (
    BINS_PER_SIDE,
    Histogram,
    finite_extremes,
    require_numbers,
)

CANDIDATES = 100
"""Ranges that a search looks at per pass; neighbours differ by one percent of the data's extreme."""

ENTROPY_BINS_PER_SIDE = 2048
"""As in the source. Finer bins hold so few numbers that their noise would count as information."""

ENTROPY_STRIDE = 8
"""Bins between neighbouring candidates."""


class Observer(Protocol):
    """Sees the batches of one tensor, then says which range to cover."""

    def update(self, tensor: FloatArray) -> None:
        """See one batch of any shape; an empty one changes nothing.

        Raises:
            InvalidParameterError: If a number is NaN or infinite.
        """
        ...

    def range(self) -> tuple[float, float]:
        """Return (low, high), low <= high, inside the data's own range widened to hold 0.

        Raises:
            InvalidParameterError: If no number was seen.
        """
        ...


class MinMax:
    """The least and greatest number seen."""

    def __init__(self) -> None:
        self._low, self._high = math.nan, math.nan

    def update(self, tensor: FloatArray) -> None:
        """See one batch; see `Observer`."""
        if tensor.size > 0:
            low, high = finite_extremes(tensor)
            self._low, self._high = float(np.fmin(self._low, low)), float(np.fmax(self._high, high))

    def range(self) -> tuple[float, float]:
        """Return the extremes; see `Observer`."""
        require_numbers(self._low)
        return self._low, self._high


class MovingAverage:
    """Averages of the batches' extremes: after each batch, low = decay low + (1 - decay) min, and high alike.

    Args:
        decay: In [0, 1). 0 is the last batch alone; 0.99 remembers about 100 batches. The first batch counts whole.
    """

    def __init__(self, *, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise InvalidParameterError("decay", rule="in [0, 1)", value=decay)
        self._decay = decay
        self._low, self._high = math.nan, math.nan

    def update(self, tensor: FloatArray) -> None:
        """See one batch; see `Observer`."""
        if tensor.size == 0:
            return
        low, high = finite_extremes(tensor)
        if not math.isnan(self._low):
            # Written as a step towards the new extreme, so that a constant stays what it is.
            low = self._low + (1 - self._decay) * (low - self._low)
            high = self._high + (1 - self._decay) * (high - self._high)
        self._low, self._high = low, high

    def range(self) -> tuple[float, float]:
        """Return the averages; see `Observer`."""
        require_numbers(self._low)
        return self._low, self._high


class _OfHistogram:
    """What the observers share that look at a histogram."""

    def __init__(self) -> None:
        self._histogram = Histogram()

    def update(self, tensor: FloatArray) -> None:
        """See one batch; see `Observer`."""
        self._histogram.add(tensor)


class Percentile(_OfHistogram):
    """The range that keeps a share of the numbers: as many are left out at each end, to one bin, outward.

    Args:
        share: In (0, 1]; 1 is `MinMax`.
    """

    def __init__(self, *, share: float = 0.9999) -> None:
        if not 0 < share <= 1:
            raise InvalidParameterError("share", rule="in (0, 1]", value=share)
        super().__init__()
        self._share = share

    def range(self) -> tuple[float, float]:
        """Return the edges of the outermost bins that are kept, no wider than the data; see `Observer`."""
        seen = self._histogram
        seen.require_numbers()
        left_out = math.floor((1 - self._share) / 2 * seen.numbers)
        counts = seen.counts.copy()
        counts[BINS_PER_SIDE] += seen.zeros
        first = int(np.argmax(np.cumsum(counts) > left_out))
        last = counts.size - 1 - int(np.argmax(np.cumsum(counts[::-1]) > left_out))
        low, high = ((edge - BINS_PER_SIDE) * seen.width for edge in (first, last + 1))
        return max(low, seen.low), min(high, seen.high)


class MeanSquaredError(_OfHistogram):
    """The range whose grid has the least mean squared error on the histogram of the data.

    Both ends are first drawn in together, then, on an asymmetric grid, each by itself in turn until neither
    moves. A range is considered only while its step is no finer than a bin, because the histogram cannot tell
    what such a grid would round.

    Args:
        scheme: Of the grid to be; one scale.
    """

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self._scheme = _one_scale(scheme)

    def error(self, low: float, high: float) -> float:
        """Return the mean of (r - r_hat)^2 over what was seen, if [low, high] is covered."""
        values, counts = self._histogram.points()
        rounded = fake_quantize(values, grid_of_range(low, high, self._scheme))
        squares = np.square(rounded.astype(np.float64) - values)
        return float(counts @ squares) / max(self._histogram.numbers, 1)

    def range(self) -> tuple[float, float]:
        """Return the best range found, never worse than the data's own; see `Observer`."""
        seen = self._histogram
        seen.require_numbers()
        low, high = seen.low, seen.high
        shares = np.linspace(1, 0, CANDIDATES, endpoint=False)
        lows, highs = (list(dict.fromkeys((end * shares).tolist())) for end in (low, high))
        limits = max(-low, high) * shares
        cut_lows, cut_highs = (np.clip(end, -limits, limits).tolist() for end in (low, high))
        best = self._best([(low, high), *zip(cut_lows, cut_highs, strict=True)])
        while not self._scheme.symmetric:
            moved = self._best([best, *((end, best[1]) for end in lows if end <= best[1])])
            moved = self._best([moved, *((moved[0], end) for end in highs if end >= moved[0])])
            if moved == best:
                break
            best = moved
        return best

    def _best(self, ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """Return the first of the best; all but the very first only if their steps are no finer than a bin."""
        width = self._histogram.width
        resolved = [(a, b) for a, b in ranges[1:] if grid_of_range(a, b, self._scheme).scale >= width]
        return min([ranges[0], *resolved], key=lambda ends: self.error(*ends))


class Entropy(_OfHistogram):
    """The range [-T, T], cut to the data, that loses the least information: KL(P || Q) is least.

    P is the histogram of what the range holds, with what lies outside added to the outermost bins. Q is the same
    without what lies outside, its bins merged into as many levels as the grid has integers, and each level spread
    evenly over its bins that are not empty. The source adds to the bins at the very ends of the range; here it is the
    outermost that are not empty, because a number where Q has none would make the divergence infinite.

    Args:
        scheme: Of the grid to be; one scale.
    """

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self._scheme = _one_scale(scheme)

    def range(self) -> tuple[float, float]:
        """Return the best range, the widest of equals; see `Observer`."""
        seen = self._histogram
        seen.require_numbers()
        merged = BINS_PER_SIDE // ENTROPY_BINS_PER_SIDE
        counts = seen.counts.reshape(-1, merged).sum(axis=1)
        filled = np.flatnonzero(counts)
        if filled.size == 0:
            return seen.low, seen.high
        levels = self._scheme.highest - self._scheme.lowest + 1
        best, least = (seen.low, seen.high), math.inf
        for bins in range(ENTROPY_BINS_PER_SIDE, 0, -ENTROPY_STRIDE):
            first, last = ENTROPY_BINS_PER_SIDE - bins, ENTROPY_BINS_PER_SIDE + bins
            if not self._scheme.symmetric:
                first = max(first, min(int(filled[0]), ENTROPY_BINS_PER_SIDE))
                last = min(last, max(int(filled[-1]) + 1, ENTROPY_BINS_PER_SIDE))
            if last - first < levels:
                break
            divergence = _divergence(counts, first, last, levels=levels)
            if divergence < least:
                limit = bins * merged * seen.width
                least, best = divergence, (max(seen.low, -limit), min(seen.high, limit))
        return best


def _divergence(counts: NDArray[np.int64], first: int, last: int, *, levels: int) -> float:
    """Return KL(P || Q) in nats for the bins in [first, last); infinite if they are all empty."""
    filled = np.flatnonzero(counts[first:last])
    if filled.size == 0:
        return math.inf
    inside = counts[first:last][filled].astype(np.float64)
    outside = np.zeros(filled.size)
    outside[0] += counts[:first].sum()
    outside[-1] += counts[last:].sum()
    level = filled * levels // (last - first)
    totals, bins = np.bincount(level, weights=inside), np.bincount(level)
    p, q = (inside + outside) / counts.sum(), (totals[level] / bins[level]) / inside.sum()
    return float(p @ np.log(p / q))


def _one_scale(scheme: Scheme) -> Scheme:
    if scheme.axis is not None or scheme.group_size is not None:
        raise InvalidParameterError("scheme", rule="of one scale per tensor", value=scheme)
    return scheme

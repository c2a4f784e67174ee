import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.histogram import BINS_PER_SIDE, Histogram

NUMBERS = st.one_of(st.floats(-8, 8, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False))
BATCHES = st.lists(npst.arrays(np.float32, st.integers(0, 20), elements=NUMBERS), min_size=1, max_size=6)


def histogram_of(batches) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


@given(batches=BATCHES, seed=st.integers(0, 999))
def test_order_and_batching_change_nothing(batches, seed):
    forward, whole = histogram_of(batches), np.concatenate(batches)
    shuffled = histogram_of([np.random.default_rng(seed).permutation(whole)])
    for name in ("zeros", "width", "low", "high"):
        assert getattr(forward, name) == getattr(shuffled, name) or whole.size == 0
    assert np.array_equal(forward.counts, shuffled.counts)


@given(batches=BATCHES)
def test_every_number_is_in_its_bin(batches):
    histogram, numbers = histogram_of(batches), np.concatenate(batches).astype(np.float64)
    assert histogram.numbers == numbers.size
    assert histogram.zeros == np.sum(numbers == 0)
    other = numbers[numbers != 0]
    if other.size == 0:
        return
    edges = (np.arange(2 * BINS_PER_SIDE + 1) - BINS_PER_SIDE) * histogram.width
    expected = np.bincount(np.searchsorted(edges, other, side="right") - 1, minlength=2 * BINS_PER_SIDE)
    assert np.array_equal(histogram.counts, expected)
    assert math.frexp(histogram.width)[0] == 0.5
    assert np.abs(other).max() >= BINS_PER_SIDE / 2 * histogram.width


@given(batches=BATCHES)
def test_points_lie_between_the_extremes_within_half_a_bin(batches):
    histogram, numbers = histogram_of(batches), np.concatenate(batches)
    middles, counts = histogram.points()
    other = np.sort(numbers[numbers != 0]).astype(np.float64)
    assert counts.sum() == other.size
    if other.size > 0:
        assert np.all((middles >= numbers.min()) & (middles <= numbers.max()))
        spread = np.repeat(middles.astype(np.float64), counts)
        rounding = np.abs(other) * 2.0**-23 + 2.0**-149
        assert np.all(np.abs(spread - other) <= histogram.width * 0.5 + rounding)


def test_nothing_else_grows():
    histogram = Histogram()
    for exponent in range(-40, 38):
        histogram.add(np.array([10.0**exponent, 0.0], np.float32))
    assert histogram.counts.shape == (2 * BINS_PER_SIDE,)
    assert (histogram.numbers, histogram.zeros) == (156, 78)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_and_leaves_no_trace(bad):
    histogram = histogram_of([np.ones(3, np.float32)])
    with pytest.raises(InvalidParameterError, match=rf"activation must be finite. Got {bad}"):
        histogram.add(np.array([5.0, bad], np.float32))
    assert (histogram.numbers, histogram.high) == (3, 1.0)


def test_without_numbers_it_says_so():
    histogram = histogram_of([np.empty((0, 4), np.float32)])
    assert histogram.numbers == 0
    with pytest.raises(InvalidParameterError, match=r"calibration must be at least one number\. Got 'none'"):
        histogram.require_numbers()

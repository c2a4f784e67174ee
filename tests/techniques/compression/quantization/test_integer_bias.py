import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from halve.techniques.compression.quantization.affine import Scheme, quantize_tensor
from halve.techniques.compression.quantization.integer_bias import integer_bias

PER_CHANNEL = Scheme(bits=8, axis=0)


def real_bias(steps, weight, activation_scale):
    return steps * activation_scale * weight.grid.scale.astype(np.float64)


def test_golden():
    weight = quantize_tensor(np.array([[1.27, 0.01], [0.5, -2.54]], np.float32), PER_CHANNEL)
    moved, steps = integer_bias(weight, np.array([0.3, -0.04], np.float32), 0.1)
    # Steps of 0.1 * 0.01 and 0.1 * 0.02.
    assert steps.tolist() == [300, -20]
    assert steps.dtype == np.int32
    assert moved is weight


def test_a_channel_without_weights_keeps_its_bias():
    weight = quantize_tensor(np.array([[0, 0], [1, 2]], np.float32), PER_CHANNEL)
    bias = np.array([0.123456, 0.5], np.float32)
    moved, steps = integer_bias(weight, bias, 0.7)
    assert real_bias(steps, moved, 0.7)[0] == pytest.approx(0.123456, rel=1e-6)
    assert np.array_equal(moved.values, weight.values)


def test_a_bias_that_dwarfs_its_weights_raises_their_scale():
    weight = quantize_tensor(np.array([[1e-9, 1e-10], [1, 2]], np.float32), PER_CHANNEL)
    bias = np.array([1e3, 0.5], np.float32)
    moved, steps = integer_bias(weight, bias, 0.01)
    assert np.abs(steps.astype(np.int64)).max() <= 2**30 + 1
    assert real_bias(steps, moved, 0.01)[0] == pytest.approx(1e3, rel=1e-6)
    assert np.array_equal(moved.values[1], weight.values[1])


@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)),
    hnp.arrays(np.float32, 3, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(1e-6, 1e3),
    st.sampled_from([0, None]),
)
def test_bias_and_weights_stay_within_half_a_step(weights, bias, activation_scale, axis):
    weight = quantize_tensor(weights, Scheme(bits=8, axis=axis))
    moved, steps = integer_bias(weight, bias, activation_scale)
    step = activation_scale * moved.grid.scale.astype(np.float64)
    assert np.all(np.abs(real_bias(steps, moved, activation_scale) - bias) <= 0.5 * step + 1e-6 * np.abs(bias))
    scales = moved.grid.expanded(weights.shape)[0]
    assert np.all(np.abs(moved.real() - weight.real()) <= 0.5001 * scales + 1e-6 * np.abs(weights))
    assert np.all(moved.grid.scale >= weight.grid.scale) or not np.all(np.any(weight.values, axis=1))

"""Golden numbers of the affine map, and what must hold for every range, width and tensor."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import (
    ACTIVATIONS,
    LARGEST,
    SMALLEST_SCALE,
    WEIGHTS,
    Grid,
    QuantizedTensor,
    Scheme,
    dequantize,
    fake_quantize,
    grid_of_range,
    grid_of_tensor,
    integer_matmul,
    quantize,
    quantize_tensor,
    used_integers,
)

ROUNDING = 1e-4
"""Steps: what float32 arithmetic may add to the half step of the formula, with up to 255 steps."""

SIGNS = st.sampled_from(
    [
        {"symmetric": True, "signed": True, "narrow": True},
        {"symmetric": True, "signed": True, "narrow": False},
        {"symmetric": False, "signed": True, "narrow": True},
        {"symmetric": False, "signed": True, "narrow": False},
        {"symmetric": False, "signed": False, "narrow": False},
    ]
)
SCHEMES = st.builds(lambda bits, signs: Scheme(bits=bits, **signs), st.integers(2, 8), SIGNS)
BOUNDS = st.one_of(
    st.floats(-10, 10, width=32), st.floats(-LARGEST, LARGEST, width=32), st.floats(-(2.0**-123), 2.0**-123, width=32)
)
RANGES = st.tuples(BOUNDS, BOUNDS).map(sorted)
TENSORS = npst.arrays(
    np.float32, npst.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-1e6, 1e6, width=32)
)


# Golden numbers.


def test_the_golden_example():
    grid = grid_of_range(-0.8, 1.2, ACTIVATIONS)
    assert round(float(grid.scale), 5) == 0.00784
    assert grid.zero_point == 102
    half = np.array([0.5], np.float32)
    assert round(float(half[0] / grid.scale), 2) == 63.75
    assert quantize(half, grid).tolist() == [166]
    assert round(float(fake_quantize(half, grid)[0]), 5) == 0.50196
    rounded = Grid(scheme=ACTIVATIONS, scale=np.asarray(np.float32(0.00784)), zero_point=grid.zero_point)
    assert quantize(half, rounded).tolist() == [166]
    assert round(float(fake_quantize(half, rounded)[0]), 5) == 0.50176


def test_four_bits_step_seventeen_times_as_far_as_eight():
    steps = [float(grid_of_range(-0.8, 1.2, Scheme(bits=bits, symmetric=False)).scale) for bits in (4, 8)]
    narrow = [2 / 14, 2 / 254]
    assert np.allclose(steps, narrow)
    unsigned = Scheme(bits=4, symmetric=False, signed=False, narrow=False)
    assert round(float(grid_of_range(-0.8, 1.2, unsigned).scale), 3) == 0.133
    assert grid_of_range(-0.8, 1.2, unsigned).zero_point == 6
    assert np.isclose(grid_of_range(-0.8, 1.2, unsigned).scale / grid_of_range(-0.8, 1.2, ACTIVATIONS).scale, 17)


@pytest.mark.parametrize(
    ("arguments", "integers"),
    [
        ({"bits": 8}, (-127, 127)),
        ({"bits": 8, "narrow": False}, (-128, 127)),
        ({"bits": 8, "symmetric": False, "signed": False, "narrow": False}, (0, 255)),
        ({"bits": 4}, (-7, 7)),
        ({"bits": 4, "symmetric": False, "signed": False, "narrow": False}, (0, 15)),
        ({"bits": 2}, (-1, 1)),
    ],
)
def test_the_integers_of_a_scheme(arguments, integers):
    scheme = Scheme(**arguments)
    assert (scheme.lowest, scheme.highest) == integers


def test_symmetric_weights():
    grid = grid_of_tensor(np.array([-0.5, 0.25, 1.27], np.float32), WEIGHTS)
    assert float(grid.scale) == pytest.approx(0.01)
    assert grid.zero_point == 0
    assert quantize(np.array([-1.27, -0.5, 0.25, 9.0], np.float32), grid).tolist() == [-127, -50, 25, 127]


def test_ties_go_to_the_even_integer():
    grid = grid_of_range(-127, 127, WEIGHTS)
    halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert quantize(halves, grid).tolist() == [-2, -2, 0, 0, 2, 2]
    # The zero point is rounded so too: 0 - (-1.5) / 1 and 0 - (-2.5) / 1 steps.
    assert grid_of_range(-1.5, 253.5, ACTIVATIONS).zero_point == 2
    assert grid_of_range(-2.5, 252.5, ACTIVATIONS).zero_point == 2


def test_values_are_int8_or_uint8():
    tensor = np.array([-1.0, 1.0], np.float32)
    assert quantize_tensor(tensor, WEIGHTS).values.dtype == np.int8
    assert quantize_tensor(tensor, ACTIVATIONS).values.dtype == np.uint8
    assert quantize_tensor(tensor, ACTIVATIONS).real().dtype == np.float32


def test_one_scale_per_channel():
    tensor = np.array([[1.27, -0.3], [0.0, 12.7], [0.0, 0.0]], np.float32)
    for axis in (0, -2):
        grid = grid_of_tensor(tensor, Scheme(axis=axis))
        assert grid.scale.tolist() == pytest.approx([0.01, 0.1, 1.0])
        assert quantize(tensor, grid).tolist() == [[127, -30], [0, 127], [0, 0]]
    assert grid_of_tensor(tensor, Scheme(axis=1)).scale.tolist() == pytest.approx([0.01, 0.1])


def test_one_scale_per_group_and_a_narrower_last_group():
    tensor = np.array([[1.27, -0.3, 12.7, 2.0, 0.254], [0.0, 0.0, 1.27, 1.0, -127.0]], np.float32)
    grid = grid_of_tensor(tensor, Scheme(group_size=2))
    assert grid.scale == pytest.approx(np.array([[0.01, 0.1, 0.002], [1.0, 0.01, 1.0]]))
    assert quantize(tensor, grid).tolist() == [[127, -30, 127, 20, 127], [0, 0, 127, 100, -127]]


def test_infinities_and_numbers_too_large_to_divide_go_to_the_ends():
    grid = grid_of_range(-1e-30, 1e-30, WEIGHTS)
    huge = np.array([-np.inf, -3e38, 3e38, np.inf], np.float32)
    assert quantize(huge, grid).tolist() == [-127, -127, 127, 127]


@pytest.mark.parametrize("scheme", [WEIGHTS, ACTIVATIONS, Scheme(bits=2), Scheme(axis=0), Scheme(group_size=4)])
def test_a_tensor_of_zeros_stays_zeros_with_scale_one(scheme):
    found = quantize_tensor(np.zeros((3, 8), np.float32), scheme)
    assert np.all(found.grid.scale == 1)
    assert not found.real().any()


@pytest.mark.parametrize("constant", [3.7, -3.7, 1e-30, 1e38])
@pytest.mark.parametrize("scheme", [WEIGHTS, ACTIVATIONS, Scheme(axis=1), Scheme(group_size=3)])
def test_a_constant_is_at_the_end_of_its_grid(constant, scheme):
    tensor = np.full((2, 5), constant, np.float32)
    assert np.allclose(quantize_tensor(tensor, scheme).real(), tensor, rtol=1e-6)


# What must hold for every range, width and tensor.


@given(bounds=RANGES, scheme=SCHEMES)
def test_zero_is_exact(bounds, scheme):
    grid = grid_of_range(*bounds, scheme)
    assert scheme.lowest <= grid.zero_point <= scheme.highest
    assert not scheme.symmetric or grid.zero_point == 0
    assert fake_quantize(np.zeros(1, np.float32), grid).tolist() == [0.0]


@given(bounds=RANGES, scheme=SCHEMES, shares=npst.arrays(np.float64, 20, elements=st.floats(0, 1)))
@settings(max_examples=300)
def test_the_error_inside_the_range_is_at_most_half_a_step(bounds, scheme, shares):
    low, high = (float(np.float32(bound)) for bound in bounds)
    grid = grid_of_range(low, high, scheme)
    tensor = np.clip(low + shares * (high - low), low, high).astype(np.float32)
    error = np.abs(fake_quantize(tensor, grid).astype(np.float64) - tensor)
    assert np.all(error <= float(grid.scale) * (0.5 + ROUNDING))


@given(bounds=RANGES, scheme=SCHEMES, tensor=npst.arrays(np.float32, 30, elements=st.floats(-20, 20, width=32)))
def test_order_is_kept(bounds, scheme, tensor):
    grid = grid_of_range(*bounds, scheme)
    rounded = fake_quantize(np.sort(tensor), grid)
    assert np.all(np.diff(rounded) >= 0)


@given(bounds=RANGES, scheme=SCHEMES)
def test_a_number_on_the_grid_stays_where_it_is(bounds, scheme):
    grid = grid_of_range(*bounds, scheme)
    integers = np.arange(scheme.lowest, scheme.highest + 1).astype(np.int8 if scheme.signed else np.uint8)
    real = dequantize(integers, grid)
    assert np.isfinite(real).all()
    assert np.array_equal(quantize(real, grid), integers)
    assert np.array_equal(fake_quantize(real, grid), real)


@given(bounds=RANGES, scheme=SCHEMES)
def test_no_symmetric_grid_reaches_further_to_one_side_when_narrow(bounds, scheme):
    grid = grid_of_range(*bounds, scheme)
    reach = [scheme.lowest - int(grid.zero_point), scheme.highest - int(grid.zero_point)]
    if scheme.symmetric and scheme.narrow:
        assert reach[0] == -reach[1]
    # Either end of the range is at most half a step outside what the grid can hold.
    assert reach[0] * float(grid.scale) <= min(bounds[0], 0) + float(grid.scale) * (0.5 + ROUNDING)
    assert reach[1] * float(grid.scale) >= max(bounds[1], 0) - float(grid.scale) * (0.5 + ROUNDING)


@given(tensor=TENSORS, bits=st.integers(2, 7), signs=SIGNS)
def test_a_bit_more_never_makes_the_step_wider(tensor, bits, signs):
    fewer, more = (grid_of_tensor(tensor, Scheme(bits=width, **signs)) for width in (bits, bits + 1))
    assert np.all(more.scale <= fewer.scale)


@given(tensor=TENSORS, scheme=SCHEMES, size=st.integers(1, 8))
def test_a_finer_grid_is_never_wider(tensor, scheme, size):
    signs = {"bits": scheme.bits, "symmetric": scheme.symmetric, "signed": scheme.signed, "narrow": scheme.narrow}
    whole = grid_of_tensor(tensor, scheme).scale
    if tensor.any():  # A slice of zeros has scale 1 by convention.
        for grid in (
            grid_of_tensor(tensor, Scheme(**signs, axis=0)),
            grid_of_tensor(tensor, Scheme(**signs, group_size=size)),
        ):
            used = grid.expanded(tensor.shape)[0] * np.ones(tensor.shape, np.float32)
            assert np.all(used[tensor != 0] <= whole)


OPERANDS = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 5))


@given(
    sizes=OPERANDS, seed=st.integers(0, 10**6), scheme=SCHEMES, bits=st.integers(2, 8), axis=st.sampled_from([None, 1])
)
def test_an_integer_product_is_the_product_of_what_the_integers_stand_for(sizes, seed, scheme, bits, axis):
    rows, depth, columns = sizes
    rng = np.random.default_rng(seed)
    left = quantize_tensor(rng.uniform(-0.8, 1.2, (rows, depth)).astype(np.float32), scheme)
    right = quantize_tensor(rng.standard_normal((depth, columns)).astype(np.float32), Scheme(bits=bits, axis=axis))
    exact = np.array(
        [
            [sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in _exact(right).T]
            for row in _exact(left)
        ]
    )
    assert np.allclose(integer_matmul(left, right), exact.astype(np.float64), rtol=1e-6, atol=0)


def _exact(tensor: QuantizedTensor) -> np.ndarray:
    """Return s (q - z) in fractions, from the scale's own bits."""
    scale, zero_point = tensor.grid.expanded(tensor.values.shape)
    steps = tensor.values.astype(np.int64) - zero_point
    scales = np.broadcast_to(scale, steps.shape)
    pairs = zip(scales.ravel(), steps.ravel(), strict=True)
    return np.array([Fraction(float(s)) * int(n) for s, n in pairs], dtype=object).reshape(steps.shape)


def test_an_integer_product_without_the_correction_is_wrong():
    left = quantize_tensor(np.array([[-0.8, 1.2]], np.float32), ACTIVATIONS)
    right = quantize_tensor(np.array([[1.0], [0.5]], np.float32), WEIGHTS)
    plain = (left.values.astype(np.int32) @ right.values.astype(np.int32)) * left.grid.scale * right.grid.scale
    assert integer_matmul(left, right)[0, 0] == pytest.approx(-0.2, abs=0.01)
    missing = left.grid.scale * right.grid.scale * left.grid.zero_point * right.values.sum(dtype=np.int32)
    assert plain[0, 0] - missing == pytest.approx(-0.2, abs=0.01)
    assert plain[0, 0] > 1


def test_sums_are_exact_at_the_longest_product_promised():
    depth = 2**16
    values = np.full((1, depth), 255, np.uint8)
    left = QuantizedTensor(values=values, grid=grid_of_range(-255, 0, ACTIVATIONS))
    assert left.grid.zero_point == 255
    right = QuantizedTensor(values=np.full((depth, 1), 127, np.int8), grid=grid_of_range(-127, 127, WEIGHTS))
    assert integer_matmul(left, right).tolist() == [[0.0]]
    positive = QuantizedTensor(values=values, grid=grid_of_range(0, 255, ACTIVATIONS))
    assert integer_matmul(positive, right).tolist() == [[float(depth * 255 * 127)]]


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits must be 2 to 8. Got 1."),
        ({"bits": 9}, "bits must be 2 to 8. Got 9."),
        ({"signed": False}, "signed must be true where symmetric or narrow. Got False."),
        ({"signed": False, "symmetric": False}, "signed must be true where symmetric or narrow. Got False."),
        ({"group_size": 0}, "group_size must be at least 1. Got 0."),
        ({"group_size": 4, "axis": 0}, "axis must be None where there is a group_size. Got 0."),
    ],
)
def test_a_bad_scheme_is_one_sentence(arguments, message):
    with pytest.raises(InvalidParameterError) as caught:
        Scheme(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1.0, -1.0, "range must be low <= high. Got (1.0, -1.0)."),
        (np.nan, 1.0, "range must be finite, within +-1.7e38. Got nan."),
        (0.0, np.inf, "range must be finite, within +-1.7e38. Got inf."),
        (-3e38, 0.0, "range must be finite, within +-1.7e38. Got -3e+38."),
        ([0.0, 2.0], [1.0, 1.0], "range must be low <= high. Got (2.0, 1.0)."),
        ([0.0, np.nan], [1.0, 1.0], "range must be finite, within +-1.7e38. Got nan."),
    ],
)
def test_a_bad_range_is_one_sentence(low, high, message):
    with pytest.raises(InvalidParameterError) as caught:
        grid_of_range(low, high, WEIGHTS)
    assert str(caught.value) == message


def test_an_integer_product_refuses_other_grids():
    plain, rng = Scheme(), np.random.default_rng(0)
    tensor = rng.standard_normal((3, 3)).astype(np.float32)
    good = quantize_tensor(tensor, plain)
    with pytest.raises(InvalidParameterError, match=r"left must be on a grid of one scale. Got \(3,\)"):
        integer_matmul(quantize_tensor(tensor, Scheme(axis=0)), good)
    with pytest.raises(InvalidParameterError, match="right must be on a grid without zero points"):
        integer_matmul(good, quantize_tensor(tensor, ACTIVATIONS))
    for scheme in (Scheme(axis=0), Scheme(group_size=3)):
        with pytest.raises(InvalidParameterError, match="right must be on a grid of one scale, or one per column"):
            integer_matmul(good, quantize_tensor(tensor, scheme))


def test_the_smallest_scale_still_divides_the_smallest_number():
    grid = grid_of_range(0, 1e-45, ACTIVATIONS)
    assert float(grid.scale) == SMALLEST_SCALE
    assert quantize(np.array([1e-45, SMALLEST_SCALE], np.float32), grid).tolist() == [0, 1]


# Symmetric or asymmetric: the rule, and what it costs to break it.


def mean_squared_error(tensor, scheme):
    return float(np.mean(np.square(quantize_tensor(tensor, scheme).real() - tensor)))


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).standard_normal(20_000).astype(np.float32)


def test_a_symmetric_grid_wastes_half_its_integers_on_a_relu(normal):
    activation = np.maximum(normal, 0)
    top = float(activation.max())
    assert used_integers(0, top, grid_of_range(0, top, WEIGHTS)) == 128
    assert used_integers(0, top, grid_of_range(0, top, ACTIVATIONS)) == 256
    # Half the integers: twice the step, four times the squared error.
    assert mean_squared_error(activation, WEIGHTS) / mean_squared_error(activation, ACTIVATIONS) == pytest.approx(
        4, 0.05
    )


def test_a_symmetric_grid_wastes_what_lies_beyond_the_shorter_side():
    symmetric, asymmetric = (grid_of_range(-0.8, 1.2, scheme) for scheme in (WEIGHTS, ACTIVATIONS))
    assert used_integers(-0.8, 1.2, symmetric) == 85 + 1 + 127
    assert dequantize(np.array([-127, -86, -85], np.int8), symmetric) == pytest.approx(
        [-1.2, -0.8126, -0.8031], abs=1e-4
    )
    assert used_integers(-0.8, 1.2, asymmetric) == 256


def test_a_tanh_loses_nothing_on_a_symmetric_grid(normal):
    activation = np.tanh(2 * normal)
    assert used_integers(-1, 1, grid_of_range(-1, 1, WEIGHTS)) == 255
    # It even gains a little: -1 and 1 are exact, and on 256 integers with 0 among them they cannot both be.
    assert 0.8 < mean_squared_error(activation, WEIGHTS) / mean_squared_error(activation, ACTIVATIONS) < 1


def test_asymmetric_weights_would_gain_little_where_they_lie_around_zero(normal):
    weight = normal.reshape(100, 200)
    asymmetric = Scheme(symmetric=False, narrow=False)
    assert mean_squared_error(weight, WEIGHTS) / mean_squared_error(weight, asymmetric) == pytest.approx(1, abs=0.15)


# The runtime agrees.


def run_quantize_linear(tensor, grid):
    """Return what onnxruntime's QuantizeLinear and DequantizeLinear make of a tensor."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    axis = {} if grid.scheme.axis is None else {"axis": grid.scheme.axis}
    kind = np.int8 if grid.scheme.signed else np.uint8
    integers = TensorProto.INT8 if grid.scheme.signed else TensorProto.UINT8
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"], **axis),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["real"], **axis),
        ],
        "g",
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, tensor.shape)],
        [
            helper.make_tensor_value_info("q", integers, tensor.shape),
            helper.make_tensor_value_info("real", TensorProto.FLOAT, tensor.shape),
        ],
        [numpy_helper.from_array(grid.scale, "s"), numpy_helper.from_array(grid.zero_point.astype(kind), "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["q", "real"], {"r": tensor})


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize(
    "scheme", [Scheme(narrow=False), Scheme(symmetric=False, narrow=False), ACTIVATIONS], ids=["s8", "s8 shifted", "u8"]
)
def test_onnxruntime_computes_the_same_bits(scheme, axis):
    chosen = Scheme(bits=8, symmetric=scheme.symmetric, signed=scheme.signed, narrow=False, axis=axis)
    rng = np.random.default_rng(4)
    grid = grid_of_tensor(rng.uniform(-0.8, 6, (7, 600)).astype(np.float32), chosen)
    scale, _ = grid.expanded((7, 600))
    ties = (rng.integers(-300, 300, (7, 600)) + 0.5).astype(np.float32) * scale
    usual = rng.standard_normal((7, 600)).astype(np.float32) * 4
    far = (10 ** rng.uniform(-45, 38, (7, 600)) * rng.choice([-1, 1], (7, 600))).astype(np.float32)
    for tensor in (ties, usual, far):
        integers, real = run_quantize_linear(tensor, grid)
        assert np.array_equal(integers, quantize(tensor, grid))
        assert np.array_equal(real, fake_quantize(tensor, grid))

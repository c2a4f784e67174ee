"""Bit-equality of the two implementations: any difference at all is a failure."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization import affine, affine_torch
from halve.techniques.compression.quantization.affine import ACTIVATIONS, WEIGHTS, Scheme

torch.set_num_threads(1)

SIGNS = st.sampled_from(
    [
        {"symmetric": True, "signed": True, "narrow": True},
        {"symmetric": True, "signed": True, "narrow": False},
        {"symmetric": False, "signed": True, "narrow": True},
        {"symmetric": False, "signed": True, "narrow": False},
        {"symmetric": False, "signed": False, "narrow": False},
    ]
)
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, max_side=5)
USUAL = st.floats(-8, 8, width=32)
ANY = st.floats(-affine.LARGEST, affine.LARGEST, width=32)
"""Subnormal and huge numbers included."""


def identical(left, right) -> bool:
    """Whether two arrays hold the same bits: NaN equals NaN, and 0 does not equal -0."""
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@st.composite
def tensors_and_schemes(draw):
    elements = draw(st.sampled_from([USUAL, ANY]))
    tensor = draw(npst.arrays(np.float32, SHAPES, elements=elements))
    places = [{}]
    if tensor.ndim > 0:
        axis = draw(st.integers(-tensor.ndim, tensor.ndim - 1))
        places += [{"axis": axis}, {"group_size": draw(st.integers(1, 7))}]
    return tensor, Scheme(bits=draw(st.integers(2, 8)), **draw(SIGNS), **draw(st.sampled_from(places)))


@given(drawn=tensors_and_schemes())
@settings(max_examples=400)
def test_a_tensor_on_its_own_grid_has_the_same_bits(drawn):
    tensor, scheme = drawn
    expected = affine.quantize_tensor(tensor, scheme)
    found = affine_torch.quantize_tensor(torch.tensor(tensor), scheme)
    assert identical(expected.grid.scale, found.grid.scale)
    assert identical(expected.grid.zero_point, found.grid.zero_point)
    assert identical(expected.values, found.values)
    assert identical(expected.real(), found.real())
    assert identical(expected.real(), affine_torch.fake_quantize(torch.tensor(tensor), found.grid))


@given(drawn=tensors_and_schemes(), data=st.data())
@settings(max_examples=200)
def test_another_tensor_on_that_grid_has_the_same_bits(drawn, data):
    first, scheme = drawn
    every = st.floats(width=32, allow_nan=False)
    second = data.draw(npst.arrays(np.float32, first.shape, elements=every))
    grid = affine.grid_of_tensor(first, scheme)
    twin = affine_torch.to_torch(grid)
    assert identical(affine.quantize(second, grid), affine_torch.quantize(torch.tensor(second), twin))
    assert identical(affine.fake_quantize(second, grid), affine_torch.fake_quantize(torch.tensor(second), twin))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scheme", [WEIGHTS, ACTIVATIONS], ids=["symmetric", "asymmetric"])
def test_ties_and_their_neighbours_round_alike(bits, scheme):
    chosen = Scheme(bits=bits, symmetric=scheme.symmetric, signed=scheme.signed, narrow=scheme.narrow)
    for high in (1.0, 0.3, 7e-39, 1e36):
        grid = affine.grid_of_range(-high, high, chosen)
        halves = (np.arange(-260, 261) / 2).astype(np.float32) * grid.scale
        halves = np.concatenate([halves, np.nextafter(halves, np.float32(0)), np.nextafter(halves, np.float32(high))])
        twin = affine_torch.to_torch(grid)
        assert identical(affine.quantize(halves, grid), affine_torch.quantize(torch.tensor(halves), twin))


def test_a_random_million_has_the_same_bits():
    bits = np.random.default_rng(3).integers(0, 2**32, 10**6, np.uint64).astype(np.uint32)
    numbers = bits.view(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    grid = affine.grid_of_range(-0.8, 1.2, ACTIVATIONS)
    twin = affine_torch.to_torch(grid)
    assert identical(affine.fake_quantize(numbers, grid), affine_torch.fake_quantize(torch.tensor(numbers), twin))
    near = np.random.default_rng(3).uniform(-1, 1.5, 10**6).astype(np.float32)
    assert identical(affine.fake_quantize(near, grid), affine_torch.fake_quantize(torch.tensor(near), twin))


def test_torchs_own_rounds_ties_otherwise():
    # The reason for this module: torch multiplies by 1 / s, and ONNX's QuantizeLinear divides.
    grid = affine_torch.grid_of_range(torch.tensor(0.0), torch.tensor(6.0), ACTIVATIONS)
    ties = (torch.arange(255) + 0.5) * grid.scale
    own = torch.fake_quantize_per_tensor_affine(ties, grid.scale, grid.zero_point, 0, 255)
    assert (own != affine_torch.fake_quantize(ties, grid)).any()


def test_there_and_back():
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    scheme = Scheme(bits=4, axis=0)
    expected = affine.quantize_tensor(weight, scheme)
    found = affine_torch.to_numpy(affine_torch.quantize_tensor(torch.tensor(weight), scheme))
    assert found.grid.scheme == scheme
    assert identical(expected.values, found.values)
    assert identical(expected.grid.scale, found.grid.scale)
    assert identical(expected.grid.zero_point, found.grid.zero_point)


def test_a_tensor_that_needs_a_gradient_can_be_measured():
    weight = torch.ones(3, 2, requires_grad=True)
    assert affine_torch.grid_of_tensor(weight, Scheme(axis=0)).scale.shape == (3,)


@pytest.mark.parametrize(
    ("tensor", "scheme", "message"),
    [
        (torch.empty(0), WEIGHTS, r"tensor must be at least one number. Got \(0,\)"),
        (torch.tensor([1.0, torch.nan]), WEIGHTS, r"range must be finite, within \+-1.7e38. Got nan"),
        (torch.tensor([1.0, torch.inf]), WEIGHTS, r"range must be finite, within \+-1.7e38. Got inf"),
        (torch.ones(2), Scheme(axis=1), r"tensor must be of a shape that has axis 1. Got \(2,\)"),
        (torch.tensor(1.0), Scheme(group_size=2), r"tensor must be of a shape that has axis -1. Got \(\)"),
    ],
)
def test_bad_input_is_one_sentence_in_both(tensor, scheme, message):
    with pytest.raises(InvalidParameterError, match=message):
        affine_torch.grid_of_tensor(tensor, scheme)
    with pytest.raises(InvalidParameterError, match=message):
        affine.grid_of_tensor(tensor.numpy(), scheme)

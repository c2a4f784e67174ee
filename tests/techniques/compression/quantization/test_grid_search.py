import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization import grid_search
from halve.techniques.compression.quantization.affine import Scheme, fake_quantize, grid_of_tensor
from halve.techniques.compression.quantization.grid_search import search_grid

SCHEMES = [
    Scheme(bits=4, axis=0),
    Scheme(bits=3),
    Scheme(bits=4, group_size=5, narrow=False),
    Scheme(bits=4, group_size=32, symmetric=False, signed=False, narrow=False),
    Scheme(bits=2, axis=0, symmetric=False, narrow=False),
]
ROWS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-100, 100, width=32)
)


def weighted_error(rows, grid, importance):
    return float(np.sum(importance * np.square((fake_quantize(rows, grid) - rows).astype(np.float64))))


@given(ROWS, st.sampled_from(SCHEMES), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_it_is_never_worse_than_the_range(rows, scheme, seed):
    importance = np.random.default_rng(seed).exponential(size=rows.shape[1])
    searched, plain = search_grid(rows, scheme, importance=importance), grid_of_tensor(rows, scheme)
    assert searched.scale.shape == plain.scale.shape
    assert searched.scale.dtype == np.float32
    assert searched.zero_point.dtype == np.int32
    assert np.all(searched.scale > 0)
    assert np.all((searched.zero_point >= scheme.lowest) & (searched.zero_point <= scheme.highest))
    assert weighted_error(rows, searched, importance) <= weighted_error(rows, plain, importance) * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_gains_on_normal_weights(scheme):
    rows = np.random.default_rng(0).standard_normal((40, 160)).astype(np.float32)
    ones = np.ones(160)
    gain = weighted_error(rows, search_grid(rows, scheme), ones) / weighted_error(
        rows, grid_of_tensor(rows, scheme), ones
    )
    assert gain < 0.95


def test_two_bits_golden():
    """Integers -1, 0, 1; numbers 0.9, 1, 1.1 and -1: nearest to one scale are all, and the best scale is their mean."""
    rows = np.array([[0.9, 1.0, 1.1, -1.2]], np.float32)
    grid = search_grid(rows, Scheme(bits=2, axis=0))
    assert grid.scale == pytest.approx([(0.9 + 1.0 + 1.1 + 1.2) / 4])


def test_no_scale_of_a_fine_lattice_is_better():
    rows = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
    scheme = Scheme(bits=4, axis=0)
    found = search_grid(rows, scheme)
    errors = [
        weighted_error(
            rows, type(found)(scheme=scheme, scale=np.array([scale], np.float32), zero_point=found.zero_point), 1
        )
        for scale in np.linspace(0.1, 0.6, 2000)
    ]
    assert weighted_error(rows, found, 1) <= 1.01 * min(errors)


def test_columns_that_do_not_count_are_not_looked_at():
    rows = np.array([[1, 2, 3, 1000]], np.float32)
    grid = search_grid(rows, Scheme(bits=8, axis=0), importance=[1, 1, 1, 1e-9])
    assert grid.scale[0] < 1000 / 127
    nothing = search_grid(rows, Scheme(bits=4, axis=0), importance=np.zeros(4))
    assert nothing.scale == grid_of_tensor(rows, Scheme(bits=4, axis=0)).scale


def test_rows_of_zeros_and_constants_are_exact():
    rows = np.array([[0, 0, 0], [2.5, 2.5, 2.5], [-1, -1, -1]], np.float32)
    for scheme in SCHEMES:
        if scheme.axis is not None or scheme.group_size is not None:
            assert fake_quantize(rows, search_grid(rows, scheme)) == pytest.approx(rows, rel=1e-6)


def test_parts_are_searched_alike(monkeypatch):
    rows = np.random.default_rng(2).standard_normal((50, 64)).astype(np.float32)
    scheme = Scheme(bits=4, group_size=16, narrow=False)
    whole = search_grid(rows, scheme)
    monkeypatch.setattr(grid_search, "CHUNK", 40)
    assert np.array_equal(search_grid(rows, scheme).scale, whole.scale)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_rows_give_the_same_grid(scheme):
    rows = np.random.default_rng(3).standard_normal((9, 33)).astype(np.float32)
    grids = [search_grid(rows, scheme) for _ in range(3)]
    assert len({grid.scale.tobytes() + grid.zero_point.tobytes() for grid in grids}) == 1


@pytest.mark.parametrize(
    ("rows", "scheme", "importance", "problem"),
    [
        (np.ones(3, np.float32), SCHEMES[0], None, r"rows must be finite, of shape \(out, in\)"),
        (np.full((2, 3), np.nan, np.float32), SCHEMES[0], None, "rows must be finite"),
        (np.ones((0, 3), np.float32), SCHEMES[0], None, "tensor must be at least one number"),
        (np.ones((2, 3), np.float32), Scheme(axis=1), None, r"scheme.axis must be None or 0"),
        (np.ones((2, 3), np.float32), SCHEMES[0], [1, 2], "importance must be one finite number >= 0 per column"),
        (np.ones((2, 3), np.float32), SCHEMES[0], [1, 2, -1], "importance must be one finite number >= 0 per column"),
        (np.ones((2, 3), np.float32), SCHEMES[0], [1, 2, np.inf], "importance must be one finite number >= 0"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(rows, scheme, importance, problem):
    with pytest.raises(InvalidParameterError, match=problem):
        search_grid(rows, scheme, importance=importance)

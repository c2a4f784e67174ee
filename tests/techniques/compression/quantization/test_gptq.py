import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Scheme, grid_of_tensor, quantize, quantize_tensor
from halve.techniques.compression.quantization.gptq import gptq, hessian, output_error

ROWS = Scheme(bits=4, axis=0)
GROUPS = Scheme(bits=4, group_size=8, narrow=False)
ASYMMETRIC = Scheme(bits=4, group_size=8, symmetric=False, signed=False, narrow=False)
TENSOR = Scheme(bits=4)
SCHEMES = [ROWS, GROUPS, ASYMMETRIC, TENSOR]


def layer(seed, *, out=12, width=24, n=200, sources=8):
    """A weight and inputs whose columns are mixtures of a few sources, as activations are."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, sources)) @ rng.standard_normal((sources, width))
    inputs = mixed + 0.3 * rng.standard_normal((n, width))
    return rng.standard_normal((out, width)).astype(np.float32), inputs.astype(np.float32)


def error_of(rows, inputs, made):
    """||(W - W_hat) X||^2 / n, from the inputs themselves."""
    return float(np.sum(np.square(inputs.astype(np.float64) @ (rows - made.real()).astype(np.float64).T))) / len(inputs)


def test_hessian_golden():
    first, second = np.array([[1, 2]], np.float32), np.array([[3, 0], [0, 1]], np.float32)
    expected = 2 / 3 * np.array([[1 + 9, 2], [2, 4 + 1]])
    assert hessian([first, second]) == pytest.approx(expected)


def test_output_error_is_the_mean_over_the_inputs():
    rows, inputs = layer(3)
    made = quantize_tensor(rows, ROWS)
    assert output_error(rows - made.real(), hessian([inputs])).sum() == pytest.approx(error_of(rows, inputs, made))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SCHEMES))
def test_it_beats_round_to_nearest_on_correlated_inputs(seed, scheme):
    rows, inputs = layer(seed)
    made = gptq(rows, hessian([inputs]), scheme)
    assert error_of(rows, inputs, made) < 0.6 * error_of(rows, inputs, quantize_tensor(rows, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_inputs_that_it_has_not_seen_gain_too(scheme):
    rows, inputs = layer(5, n=400)
    made = gptq(rows, hessian([inputs[:200]]), scheme)
    assert error_of(rows, inputs[200:], made) < 0.7 * error_of(rows, inputs[200:], quantize_tensor(rows, scheme))


@given(st.integers(0, 10_000), st.sampled_from(SCHEMES), st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_row_is_worse_than_round_to_nearest(seed, scheme, sweeps, search):
    rows, inputs = layer(seed, out=6, width=16, n=10, sources=16)
    seen = hessian([inputs])
    made = gptq(rows, seen, scheme, sweeps=sweeps, scale_search=search)
    nearest = quantize(rows, made.grid)
    assert np.all(
        output_error(rows - made.real(), seen)
        <= output_error(rows - type(made)(values=nearest, grid=made.grid).real(), seen) * (1 + 1e-6) + 1e-12
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sweeps", [0, 4])
def test_it_is_round_to_nearest_where_inputs_are_uncorrelated(scheme, sweeps):
    rows, _ = layer(1)
    diagonal = np.diag(np.linspace(0.5, 9, rows.shape[1]))
    made, nearest = gptq(rows, diagonal, scheme, sweeps=sweeps), quantize_tensor(rows, scheme)
    assert np.array_equal(made.values, nearest.values)
    assert np.array_equal(made.grid.scale, nearest.grid.scale)


@pytest.mark.parametrize("seed", range(20))
def test_three_weights_come_close_to_the_best_of_all_roundings(seed):
    rows, inputs = layer(seed, out=1, width=3, n=50, sources=2)
    seen, scheme = hessian([inputs]), Scheme(bits=2, axis=0)
    grid = grid_of_tensor(rows, scheme)
    choices = np.array(list(itertools.product((-1, 0, 1), repeat=3)), np.float64) * float(grid.scale[0])
    best = float(output_error(rows - choices, seen).min())
    nearest = float(output_error(rows - quantize_tensor(rows, scheme).real(), seen)[0])
    made = float(output_error(rows - gptq(rows, seen, scheme, damping=0).real(), seen)[0])
    assert best * (1 - 1e-6) <= made <= nearest * (1 + 1e-6)
    assert made <= best + 0.5 * (nearest - best) + 1e-9 or made == pytest.approx(nearest)


def test_three_weights_golden():
    """Three equal inputs: only the sum of the weights counts, 0.4 + 0.4 + 1 = 1.8; nearest gives 0 + 0 + 1."""
    rows = np.array([[0.4, 0.4, 1.0]], np.float32)
    same = 2 * np.ones((3, 3))
    scheme = Scheme(bits=2, axis=0)
    assert quantize_tensor(rows, scheme).values.tolist() == [[0, 0, 1]]
    made = gptq(rows, same, scheme)
    assert sorted(made.values[0].tolist()) == [0, 1, 1]
    assert float(output_error(rows - made.real(), same)[0]) == pytest.approx(0.2**2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sweeps_never_raise_the_error(scheme):
    rows, inputs = layer(8)
    errors = [error_of(rows, inputs, gptq(rows, hessian([inputs]), scheme, sweeps=sweeps)) for sweeps in range(5)]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("order", [True, False])
def test_blocks_change_nothing(scheme, order):
    rows, inputs = layer(2)
    made = [
        gptq(rows, hessian([inputs]), scheme, block_size=size, order_by_activation=order).values for size in (1, 7, 128)
    ]
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_grids_are_those_of_the_rows_whatever_the_order(scheme):
    rows, inputs = layer(4, width=20)
    inputs[:, ::3] *= 10
    for order in (True, False):
        made = gptq(rows, hessian([inputs]), scheme, order_by_activation=order)
        assert np.array_equal(made.grid.scale, grid_of_tensor(rows, scheme).scale)
        assert made.values.dtype == (np.int8 if scheme.signed else np.uint8)


def test_columns_that_change_places_change_places_in_the_result():
    rows, inputs = layer(6)
    inputs *= np.linspace(1, 3, inputs.shape[1], dtype=np.float32)
    places = np.random.default_rng(0).permutation(rows.shape[1])
    made = gptq(rows, hessian([inputs]), ROWS).values
    moved = gptq(np.ascontiguousarray(rows[:, places]), hessian([inputs[:, places]]), ROWS).values
    assert np.array_equal(moved, made[:, places])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_column_that_is_never_seen_becomes_zero(scheme):
    rows, inputs = layer(7)
    inputs[:, [0, 9]] = 0
    real = gptq(rows, hessian([inputs]), scheme).real()
    assert np.all(real[:, [0, 9]] == 0)
    assert np.any(real[:, 1] != 0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fewer_inputs_than_columns_are_enough(scheme):
    rows, inputs = layer(9, n=5)
    assert np.linalg.matrix_rank(hessian([inputs])) == 5
    for damping in (0.0, 0.01):
        made = gptq(rows, hessian([inputs]), scheme, damping=damping)
        assert error_of(rows, inputs, made) < 0.3 * error_of(rows, inputs, quantize_tensor(rows, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_inputs_of_nothing_but_zero_give_zeros(scheme):
    rows, _ = layer(10)
    assert np.all(gptq(rows, np.zeros((24, 24)), scheme).real() == 0)


@given(st.floats(-30, 30))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_the_inputs_does_not_matter(exponent):
    rows, inputs = layer(11, out=4, width=8)
    unit = 2.0 ** round(exponent)
    made, scaled = (gptq(rows, hessian([inputs]) * factor, ROWS).values for factor in (1.0, unit))
    assert np.array_equal(made, scaled)


@pytest.mark.parametrize("scheme", [ROWS, GROUPS, ASYMMETRIC])
def test_a_searched_grid_helps_on_three_bits(scheme):
    rows, inputs = layer(12, out=32, width=64, n=500, sources=40)
    scheme = Scheme(**{**scheme.__dict__, "bits": 3})
    seen = hessian([inputs])
    searched, plain = (gptq(rows, seen, scheme, scale_search=search) for search in (True, False))
    assert error_of(rows, inputs, searched) < error_of(rows, inputs, plain)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ten_runs_give_the_same_integers(scheme):
    rows, inputs = layer(14)
    made = {gptq(rows, hessian([inputs]), scheme, scale_search=True).values.tobytes() for _ in range(10)}
    assert len(made) == 1


def test_arguments_are_left_alone():
    rows, inputs = layer(15)
    seen = hessian([inputs])
    before = rows.copy(), seen.copy()
    gptq(rows, seen, ROWS)
    assert np.array_equal(rows, before[0])
    assert np.array_equal(seen, before[1])


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ([], r"inputs must be at least one row. Got 0"),
        ([np.zeros((0, 3), np.float32)], r"inputs must be at least one row. Got 0"),
        ([np.zeros(3, np.float32)], r"inputs\[0\] must be of shape \(n, in\)"),
        ([np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)], r"inputs\[1\] must be of shape \(n, 3\)"),
        ([np.full((1, 3), np.nan, np.float32)], r"inputs\[0\] must be finite"),
    ],
)
def test_inputs_that_say_nothing_are_refused(inputs, problem):
    with pytest.raises(InvalidParameterError, match=problem):
        hessian(inputs)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"rows": np.zeros(3, np.float32)}, r"rows must be of shape \(out, in\)"),
        ({"rows": np.full((2, 3), np.inf, np.float32)}, r"rows must be finite"),
        ({"hessian": np.eye(4)}, r"hessian must be of shape \(3, 3\). Got \(4, 4\)"),
        ({"hessian": np.full((3, 3), np.nan)}, r"hessian must be finite"),
        ({"hessian": np.array([[1, 9, 0], [9, 1, 0], [0, 0, 1.0]]) * 1e6 - 2e9 * (1 - np.eye(3))}, r"semidefinite"),
        ({"scheme": Scheme(axis=1)}, r"scheme.axis must be None or 0"),
        ({"damping": -1.0}, r"damping must be at least 0"),
        ({"damping": float("nan")}, r"damping must be at least 0"),
        ({"block_size": 0}, r"block_size must be at least 1"),
        ({"sweeps": -1}, r"sweeps must be at least 0"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(changed, problem):
    arguments = {"rows": np.ones((2, 3), np.float32), "hessian": np.eye(3), "scheme": ROWS, **changed}
    with pytest.raises(InvalidParameterError, match=problem):
        gptq(**arguments)

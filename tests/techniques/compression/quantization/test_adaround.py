import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.adaround import _beta, _share, adaround
from halve.techniques.compression.quantization.affine import (
    QuantizedTensor,
    Scheme,
    fake_quantize,
    grid_of_tensor,
    quantize_tensor,
)

SCHEMES = [
    Scheme(bits=4, axis=0),
    Scheme(bits=3),
    Scheme(bits=4, group_size=8, narrow=False),
    Scheme(bits=4, group_size=8, symmetric=False, signed=False, narrow=False),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer(seed, *, out=12, width=24, n=200, sources=8):
    """A weight and inputs whose columns are mixtures of a few sources, as activations are."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, sources)) @ rng.standard_normal((sources, width))
    inputs = mixed + 0.3 * rng.standard_normal((n, width))
    return rng.standard_normal((out, width)).astype(np.float32), inputs.astype(np.float32)


def row_errors(rows, inputs, made, targets=None):
    targets = inputs @ rows.T if targets is None else targets
    return np.mean(np.square(inputs @ made.real().T - targets, dtype=np.float64), axis=0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_recovers_most_of_what_round_to_nearest_loses(scheme, seed):
    rows, inputs = layer(seed)
    made = adaround(rows, inputs, grid_of_tensor(rows, scheme))
    nearest = quantize_tensor(rows, scheme)
    assert row_errors(rows, inputs, made).sum() < 0.5 * row_errors(rows, inputs, nearest).sum()


def test_inputs_that_it_has_not_seen_gain_too():
    rows, inputs = layer(2, n=600)
    scheme = SCHEMES[0]
    made = adaround(rows, inputs[:400], grid_of_tensor(rows, scheme))
    held_out = inputs[400:]
    assert (
        row_errors(rows, held_out, made).sum() < 0.5 * row_errors(rows, held_out, quantize_tensor(rows, scheme)).sum()
    )


@given(st.integers(0, 10_000), st.sampled_from(SCHEMES), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_every_weight_is_one_of_two_steps_and_no_row_is_worse_than_nearest(seed, scheme, steps):
    rows, inputs = layer(seed, out=4, width=16, n=20)
    grid = grid_of_tensor(rows, scheme)
    made = adaround(rows, inputs, grid, steps=steps, seed=seed)
    scale, _ = grid.expanded(rows.shape)
    clamped = np.clip(rows, *clipping(rows.shape, grid))
    assert np.all(np.abs(made.real() - clamped) <= scale * (1 + 1e-5))
    nearest = QuantizedTensor(values=quantize_tensor(rows, scheme).values, grid=grid)
    assert np.all(row_errors(rows, inputs, made) <= row_errors(rows, inputs, nearest) * (1 + 1e-6))


def clipping(shape, grid):
    scale, zero_point = grid.expanded(shape)
    return (grid.scheme.lowest - zero_point) * scale, (grid.scheme.highest - zero_point) * scale


def test_what_is_on_the_grid_stays_there():
    rows, inputs = layer(3)
    grid = grid_of_tensor(rows, SCHEMES[0])
    exact = fake_quantize(rows, grid)
    made = adaround(exact, inputs, grid, steps=50)
    assert np.array_equal(made.real(), exact)
    assert made.rows_kept_nearest == len(rows)


def test_rows_that_gain_nothing_are_counted():
    """Uncorrelated inputs, one weight each: nearest is the best that there is."""
    rows = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    made = adaround(rows, np.eye(8, dtype=np.float32), grid_of_tensor(rows, SCHEMES[0]), steps=200)
    assert made.rows_kept_nearest == 6
    assert np.array_equal(made.values, quantize_tensor(rows, SCHEMES[0]).values)
    correlated, inputs = layer(4)
    assert adaround(correlated, inputs, grid_of_tensor(correlated, SCHEMES[0])).rows_kept_nearest == 0


def test_a_range_that_clips_still_works():
    rows, inputs = layer(5)
    grid = grid_of_tensor(rows * 0.5, SCHEMES[0])
    made = adaround(rows, inputs, grid, steps=300)
    nearest = QuantizedTensor(values=made.values * 0 + quantize_tensor(rows * 0, SCHEMES[0]).values, grid=grid)
    assert row_errors(rows, inputs, made).sum() < row_errors(rows, inputs, nearest).sum()
    assert np.abs(made.values).max() == 7


def test_given_targets_are_what_counts():
    """Inputs that an earlier layer made 10 % too small: rounding up makes some of it good."""
    rows, inputs = layer(6)
    targets, short = inputs @ rows.T, np.float32(0.9) * inputs
    grid = grid_of_tensor(rows * 1.1, SCHEMES[0])
    aware, unaware = adaround(rows, short, grid, targets=targets), adaround(rows, short, grid)
    aware_error = row_errors(rows, short, aware, targets).sum()
    assert aware_error < row_errors(rows, short, unaware, targets).sum()


def test_h_and_beta_golden():
    assert _share(torch.tensor([-100.0, 0.0, 100.0])).tolist() == pytest.approx([0, 0.5, 1])
    assert _share(torch.logit(torch.tensor([0.1 / 1.2]))).tolist() == pytest.approx([0], abs=1e-6)
    assert _beta(0.0) is None
    assert _beta(0.199) is None
    assert _beta(0.2) == pytest.approx(20)
    assert _beta(0.6) == pytest.approx(11)
    assert _beta(1.0) == pytest.approx(2)


def test_ten_runs_give_the_same_integers():
    rows, inputs = layer(7)
    grid = grid_of_tensor(rows, SCHEMES[0])
    state = torch.get_rng_state()
    made = {adaround(rows, inputs, grid, steps=100, seed=3).values.tobytes() for _ in range(10)}
    assert len(made) == 1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"rows": np.ones(3, np.float32)}, r"rows must be of shape \(out, in\)"),
        ({"rows": np.full((2, 3), np.nan, np.float32)}, "rows must be finite"),
        ({"inputs": np.ones((5, 4), np.float32)}, r"inputs must be of shape \(n, 3\), n > 0. Got \(5, 4\)"),
        ({"inputs": np.ones((0, 3), np.float32)}, r"inputs must be of shape \(n, 3\), n > 0"),
        ({"inputs": np.full((5, 3), np.inf, np.float32)}, "inputs must be finite"),
        ({"targets": np.ones((5, 3), np.float32)}, r"targets must be of shape \(5, 2\). Got \(5, 3\)"),
        ({"targets": np.full((5, 2), np.nan, np.float32)}, "targets must be finite"),
        ({"steps": 0}, "steps must be at least 1. Got 0"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(changed, problem):
    rows = np.ones((2, 3), np.float32)
    arguments = {"rows": rows, "inputs": np.ones((5, 3), np.float32), "grid": grid_of_tensor(rows, SCHEMES[0])}
    with pytest.raises(InvalidParameterError, match=problem):
        adaround(**(arguments | changed))

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halve.techniques.compression.quantization import affine
from halve.techniques.compression.quantization.affine import Grid, Scheme
from halve.techniques.compression.quantization.training.learned_step import fake_quantize, initial_weight_step

NUMBERS = [-3.0, -1.01, -0.6, 0.0, 0.5, 0.26, 0.74, 3.4, 3.6, 9.0]
"""Over step 0.5 and integers -2..7: below the range, inside it at both sides of a middle, and above it."""


def gradients(numbers, *, step, lowest, highest, sharing, weights):
    tensor = torch.tensor(numbers, requires_grad=True)
    learned = torch.tensor(step, requires_grad=True)
    rounded = fake_quantize(tensor, learned, lowest=lowest, highest=highest, sharing=sharing)
    (rounded * torch.tensor(weights)).sum().backward()
    return rounded.detach().numpy(), tensor.grad.numpy(), float(learned.grad)


def test_the_gradient_of_numbers_is_1_inside_the_range_and_0_outside():
    _, of_numbers, _ = gradients(NUMBERS, step=0.5, lowest=-2, highest=7, sharing=10, weights=[1.0] * 10)
    np.testing.assert_array_equal(of_numbers, [0, 0, 1, 1, 1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (-3.0, -2.0),  # below: the lowest integer
        (0.5, 0.0),  # on a step: nothing to gain
        (0.26, 1 - 0.52),  # round(x / s) - x / s
        (0.74, 1 - 1.48),
        (3.4, 7 - 6.8),
        (9.0, 7.0),  # above: the highest
    ],
)
def test_the_gradient_of_the_step_is_that_of_lsq(number, expected):
    _, _, of_step = gradients([number], step=0.5, lowest=-2, highest=7, sharing=25, weights=[3.0])
    assert of_step == pytest.approx(3.0 * expected / math.sqrt(25 * 7), abs=1e-6)


def test_each_channel_sees_its_own_numbers():
    tensor = torch.tensor([[0.26, 0.26], [9.0, 9.0]])
    step = torch.tensor([[0.5], [0.5]], requires_grad=True)
    fake_quantize(tensor, step, lowest=-2, highest=7, sharing=1).sum().backward()
    np.testing.assert_allclose(step.grad.numpy(), [[2 * 0.48 / math.sqrt(7)], [2 * 7 / math.sqrt(7)]], rtol=1e-5)


@given(
    numbers=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    step=st.floats(2**-10, 2**6, width=32),
    bits=st.integers(2, 8),
    share=st.floats(0, 1),
)
def test_values_are_those_of_the_oracle(numbers, step, bits, share):
    scheme = Scheme(bits=bits, symmetric=False, signed=False, narrow=False)
    zero_point = round(share * (scheme.highest - 1))
    grid = Grid(scheme=scheme, scale=np.float32(step).reshape(()), zero_point=np.int32(zero_point).reshape(()))
    expected = affine.fake_quantize(np.asarray(numbers, np.float32), grid)
    actual = fake_quantize(
        torch.tensor(numbers), torch.tensor(step), lowest=-zero_point, highest=scheme.highest - zero_point, sharing=1
    )
    np.testing.assert_array_equal(actual.numpy(), expected)


def test_the_step_to_start_from_is_lsqs_unless_it_reaches_beyond_the_largest_weight():
    spread = torch.tensor([[0.1, -0.1, 0.1, 4.0], [1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    step = initial_weight_step(spread, highest=7)
    assert step.shape == (3, 1)
    np.testing.assert_allclose(step[:, 0], [min(2 * 1.075 / math.sqrt(7), 4 / 7), 1 / 7, 1.0], rtol=1e-6)
    heavy_tailed = torch.tensor([[0.01] * 99 + [1.0]])
    assert float(initial_weight_step(heavy_tailed, highest=7)) == pytest.approx(2 * 0.0199 / math.sqrt(7), rel=1e-5)

import numpy as np
import pytest
import torch
from torch import nn

from halve.techniques.compression.quantization import affine
from halve.techniques.compression.quantization.affine import Grid, Scheme
from halve.techniques.compression.quantization.training.modules import FakeQuantize, QuantizedProduct

WEIGHT = Scheme(bits=4, symmetric=True, signed=True, narrow=True, axis=0)
ACTIVATION = Scheme(bits=4, symmetric=False, signed=False, narrow=False)
GRID = Grid(scheme=ACTIVATION, scale=np.float32(0.25).reshape(()), zero_point=np.int32(5).reshape(()))


def normalized(product, norm):
    """The product with a norm whose scales are of both signs and 0."""
    channels = product.weight.shape[0]
    norm.running_mean = torch.linspace(-1, 1, channels)
    norm.running_var = torch.linspace(0.1, 2, channels)
    norm.weight.data = torch.linspace(-1, 1, channels)
    norm.bias.data = torch.linspace(0.5, -0.5, channels)
    return QuantizedProduct(product, WEIGHT, norm.eval(), "some.layer")


def on_grid(*shape):
    torch.manual_seed(1)
    return torch.randint(-5, 11, shape) * 0.25


PRODUCTS = {
    "linear": lambda: (normalized(nn.Linear(6, 5), nn.BatchNorm1d(5)), on_grid(3, 6)),
    "tokens": lambda: (QuantizedProduct(nn.Linear(6, 5), WEIGHT, None, "l"), on_grid(3, 2, 6)),
    "no bias": lambda: (QuantizedProduct(nn.Linear(6, 5, bias=False), WEIGHT, None, "l"), on_grid(3, 6)),
    "conv1d": lambda: (normalized(nn.Conv1d(2, 5, 3, padding="same"), nn.BatchNorm1d(5)), on_grid(3, 2, 7)),
    "grouped": lambda: (normalized(nn.Conv2d(4, 6, 3, groups=2, stride=2), nn.BatchNorm2d(6)), on_grid(3, 4, 7, 7)),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_evaluation_in_integers_is_training_with_frozen_statistics(kind):
    torch.manual_seed(0)
    product, tensor = PRODUCTS[kind]()
    step = torch.tensor(0.25)
    product.freeze_statistics()
    with torch.no_grad():
        trained, evaluated = product.train()(tensor, step), product.eval()(tensor, step)
    # They differ by the rounding of the bias to the step of the products, and of fp32.
    _, weight_step, _ = product.folded()
    assert float((trained - evaluated).abs().max()) <= float(weight_step.max()) * 0.25 * 0.51 + 1e-5


@pytest.mark.parametrize("kind", PRODUCTS)
def test_the_plain_layer_holds_the_folded_integers(kind):
    torch.manual_seed(0)
    product, tensor = PRODUCTS[kind]()
    weight, bias = product.quantized_weight()
    assert weight.values.dtype == np.int8
    assert abs(weight.values.astype(int)).max() <= 7
    layer = product.plain()
    np.testing.assert_array_equal(layer.weight.detach().numpy(), weight.real())
    np.testing.assert_array_equal(layer.bias.detach().numpy(), bias)
    with torch.no_grad():
        expected = product.freeze_statistics() or product.train()(tensor, torch.tensor(0.25))
        np.testing.assert_allclose(layer(tensor), expected, atol=1e-5)


def test_a_channel_that_the_norm_multiplies_by_0_holds_integers_0():
    product, _ = PRODUCTS["linear"]()
    integers, step, bias = product.folded()
    assert (integers[2] == 0).all()
    assert (integers[1] != 0).any()
    assert step[2] > 0
    assert float(bias[2]) == pytest.approx(0.0)


def test_statistics_follow_the_batches_until_they_are_frozen():
    product, tensor = PRODUCTS["linear"]()
    step, before = torch.tensor(0.25), product.norm.running_mean.clone()
    product.train()(tensor, step)
    moved = product.norm.running_mean.clone()
    assert not torch.equal(moved, before)
    product.freeze_statistics()
    product.train()(tensor, step)
    assert torch.equal(product.norm.running_mean, moved)


def test_training_moves_weights_and_steps():
    product, tensor = PRODUCTS["linear"]()
    step = torch.tensor(0.25)
    product.train()(tensor, step).square().sum().backward()
    assert product.step.grad.shape == (5, 1)
    assert product.step.grad.abs().sum() > 0
    assert product.product.weight.grad.abs().sum() > 0


def test_an_activation_is_rounded_as_by_the_oracle():
    quantizer = FakeQuantize(ACTIVATION, "x")
    quantizer.start(GRID)
    numbers = torch.linspace(-3, 4, 301)
    np.testing.assert_array_equal(quantizer(numbers).detach().numpy(), affine.fake_quantize(numbers.numpy(), GRID))


def test_before_it_starts_a_quantizer_only_watches():
    quantizer, seen = FakeQuantize(ACTIVATION, "x"), []
    quantizer.watch = seen.append
    numbers = torch.linspace(-3, 4, 5)
    assert quantizer(numbers) is numbers
    np.testing.assert_array_equal(seen[0], numbers.numpy())


def test_a_step_below_0_counts_as_its_size():
    quantizer = FakeQuantize(ACTIVATION, "x")
    quantizer.start(GRID)
    expected = quantizer(torch.tensor([0.3, 1.0]))
    quantizer.step.data.neg_()
    torch.testing.assert_close(quantizer(torch.tensor([0.3, 1.0])), expected)
    assert quantizer.grid().scale == np.float32(0.25)


def test_a_saved_state_brings_its_zero_point():
    quantizer, fresh = FakeQuantize(ACTIVATION, "x"), FakeQuantize(ACTIVATION, "x")
    quantizer.start(GRID)
    fresh.load_state_dict(quantizer.state_dict())
    numbers = torch.linspace(-3, 4, 31)
    assert torch.equal(fresh(numbers), quantizer(numbers))
    assert fresh.grid().zero_point == 5

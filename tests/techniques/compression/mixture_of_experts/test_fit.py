import pytest
import torch
from torch import nn

from halve.techniques.compression.mixture_of_experts.find import feed_forwards
from halve.techniques.compression.mixture_of_experts.fit import answers, fit_layer, shuffled


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 24), nn.GELU(), nn.Linear(24, 6)).eval()


def fit(dense, tokens, **changes):
    settings = {"experts": 4, "active": 2, "shared_share": 0.0, "seed": 0, **changes}
    return fit_layer(dense[0], dense[2], feed_forwards(dense)[0], tokens, **settings)


def test_the_parts_add_up_to_the_dense_answer(dense):
    tokens = torch.randn(50, 10)
    mixture, _ = fit(dense, tokens)
    with torch.no_grad():
        biases = mixture.bias + mixture.second_bias.sum(0)
        torch.testing.assert_close(sum(answers(mixture, tokens)) + biases, dense(tokens), atol=1e-5, rtol=1e-5)


def test_what_is_left_out_is_replaced_by_its_mean(dense):
    tokens = torch.randn(2000, 10)
    mixture, row = fit(dense, tokens, active=1)
    with torch.no_grad():
        error = mixture(tokens) - dense(tokens)
        corrected = float(error.square().mean())
        mixture.bias.add_(mixture.second_bias.sum(0))
        mixture.second_bias.zero_()
        plain = float((mixture(tokens) - dense(tokens)).square().mean())
    assert float(error.mean(0).abs().max()) < 0.03
    assert corrected < plain
    assert 0 < row.relative_error < 1


def test_the_better_split_stays():
    # Weights come in four directions, so clusters of weights are clusters of firing too; activations see that as well,
    # and whichever is kept must be told by its name and be no worse than choosing experts by chance.
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(10, 24), nn.GELU(), nn.Linear(24, 6)).eval()
    with torch.no_grad():
        dense[0].weight.copy_(3 * torch.eye(10)[torch.arange(24) % 4])
    mixture, row = fit(dense, torch.randn(600, 10))
    assert row.split in ("activations", "weights")
    assert 0.5 < row.captured_share <= row.oracle_share + 1e-6
    # Each expert holds one direction.
    assert all(len(torch.unique(weight.detach().round(), dim=0)) == 1 for weight in mixture.first_weight)


def test_layers_without_a_bias(dense):
    bare = nn.Sequential(nn.Linear(10, 24, bias=False), nn.GELU(), nn.Linear(24, 6, bias=False)).eval()
    tokens = torch.randn(50, 10)
    mixture, row = fit(bare, tokens, active=4)
    assert row.relative_error < 1e-9
    with torch.no_grad():
        torch.testing.assert_close(mixture(tokens), bare(tokens), atol=1e-5, rtol=1e-5)


def test_one_token_is_enough(dense):
    mixture, _ = fit(dense, torch.randn(1, 10))
    assert all(parameter.isfinite().all() for parameter in mixture.parameters())


def test_tokens_are_drawn_by_the_seed():
    tokens = torch.arange(100.0)[:, None]
    one = shuffled(tokens, most=10, seed=1)
    assert len(one) == 10
    assert torch.equal(one, shuffled(tokens, most=10, seed=1))
    assert not torch.equal(one, shuffled(tokens, most=10, seed=2))

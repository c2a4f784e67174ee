import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning import measure_sparsity, n_of_m_mask, sparse_gpt, sparse_gpt_prune, wanda_mask


def correlated(*, rows=32, columns=64, count=512, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns // 4, columns, generator=generator)
    noise = 0.1 * torch.randn(count, columns, generator=generator)
    inputs = torch.randn(count, columns // 4, generator=generator) @ mixing + noise
    return torch.randn(rows, columns, generator=generator), inputs


def output_error(weight, pruned, inputs):
    return float((inputs @ (weight - pruned).T).square().mean())


def test_two_columns_by_hand():
    # H = [[2, 1], [1, 2]] without damping: H^-1 = 1/3 [[2, -1], [-1, 2]]. U_11^2 = 2/3, U_12 = -1/3 / sqrt(2/3),
    # U_22^2 = 2/3 - 1/6 = 1/2. Scores of the row (1, 2): 1 / (2/3) = 1.5 and 4 / (1/2) = 8, so the first goes.
    # Best second weight without the first: minimize (2 - w)^2 2 + 2 (2 - w) 1 + 2 -> w = 2 + 1/2.
    pruned = sparse_gpt(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]]), sparsity=0.5, damping=1e-9)
    torch.testing.assert_close(pruned, torch.tensor([[0.0, 2.5]]))


@pytest.mark.parametrize("kind", [{"sparsity": 0.5}, {"n_of_m": (2, 4)}])
def test_it_beats_wanda_and_magnitude_on_correlated_inputs(kind):
    weight, inputs = correlated()
    norms = inputs.norm(dim=0)
    ours = output_error(weight, sparse_gpt(weight, inputs.T @ inputs, **kind), inputs)
    wanda = output_error(weight, weight * wanda_mask(weight, norms, **kind), inputs)
    magnitude = output_error(weight, weight * wanda_mask(weight, torch.ones(64), **kind), inputs)
    assert ours < 0.5 * min(wanda, magnitude)


def test_without_correlation_it_only_drops():
    weight = torch.tensor([[3.0, 1.0, 2.0, 5.0]])
    torch.testing.assert_close(sparse_gpt(weight, torch.eye(4), sparsity=0.5), torch.tensor([[3.0, 0.0, 0.0, 5.0]]))


def test_two_of_four_is_two_of_four_across_blocks():
    weight, inputs = correlated()
    pruned = sparse_gpt(weight, inputs.T @ inputs, n_of_m=(2, 4), block=6)
    assert ((pruned != 0).reshape(-1, 4).sum(1) == 2).all()
    assert torch.equal(n_of_m_mask(pruned, n=2, m=4), pruned != 0)


@given(
    sparsity=st.floats(0, 1),
    rows=st.integers(1, 6),
    columns=st.integers(1, 24),
    block=st.integers(1, 30),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_sparsity_is_reached_within_one_element(sparsity, rows, columns, block, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, inputs = torch.randn(rows, columns, generator=generator), torch.randn(50, columns, generator=generator)
    pruned = sparse_gpt(weight, inputs.T @ inputs, sparsity=sparsity, block=block)
    assert abs(int((pruned == 0).sum()) - sparsity * weight.numel()) <= 1


def test_a_feature_that_is_always_zero_goes_first_and_costs_nothing():
    weight, inputs = correlated()
    inputs[:, 5] = 0
    pruned = sparse_gpt(weight, inputs.T @ inputs, sparsity=0.5)
    assert (pruned[:, 5] == 0).all()
    assert torch.isfinite(pruned).all()


def test_a_whole_module_in_order():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    inputs = {"x": np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)}
    head = module[4].weight.clone()
    masks = sparse_gpt_prune(module, inputs, sparsity=0.5, skip=("4",))
    assert set(masks) == {"0.weight", "2.weight"}
    assert torch.equal(module[4].weight, head)
    assert measure_sparsity(nn.Sequential(module[0], module[2])) == pytest.approx(0.5, abs=2 / (16 * 32 + 32 * 32))


def test_what_cannot_be_is_named():
    with pytest.raises(InvalidParameterError, match="shapes"):
        sparse_gpt(torch.ones(2, 3), torch.eye(2), sparsity=0.5)
    with pytest.raises(InvalidParameterError, match="not both"):
        sparse_gpt(torch.ones(2, 3), torch.eye(3))
    with pytest.raises(InvalidParameterError, match="block"):
        sparse_gpt(torch.ones(2, 3), torch.eye(3), sparsity=0.5, block=0)
    with pytest.raises(InvalidParameterError, match="divisible"):
        sparse_gpt(torch.ones(2, 3), torch.eye(3), n_of_m=(2, 4))

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning import (
    MaskKeeper,
    apply_masks,
    cubic_sparsity,
    magnitude_masks,
    measure_sparsity,
    n_of_m_mask,
)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def two_layers():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    module[0].weight.data = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    module[1].weight.data = torch.tensor([[0.1, 10.0]])
    return module


def test_two_of_four_by_hand():
    weight = torch.tensor([[1.0, -3.0, 2.0, 0.5, 0.0, 0.0, -1.0, 0.1], [4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    # Magnitudes by fours: (1 3 2 .5) keeps 3 and 2; (0 0 1 .1) keeps 1 and .1; of equal ones the first stay.
    expected = [[0, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]]
    assert n_of_m_mask(weight, n=2, m=4).int().tolist() == expected


def test_one_of_two_runs_along_the_inputs_of_a_filter():
    weight = torch.tensor([[[1.0, 2.0]], [[4.0, 3.0]]])  # two filters of one channel and two places
    assert n_of_m_mask(weight, n=1, m=2).int().tolist() == [[[0, 1]], [[1, 0]]]


def test_global_compares_all_layers_and_layer_does_not():
    # 6 weights, a half is 3: globally 0.1, 1 and 2 go; per layer 1 and 2 of the first, 0.1 of the second.
    masks = magnitude_masks(two_layers(), sparsity=0.5)
    assert masks["0.weight"].int().tolist() == [[0, 0], [1, 1]]
    assert masks["1.weight"].int().tolist() == [[0, 1]]
    # Two thirds is 4: globally 3 goes too; per layer round(2/3 x 4) = 3 and round(2/3 x 2) = 1.
    assert magnitude_masks(two_layers(), sparsity=2 / 3)["0.weight"].int().tolist() == [[0, 0], [0, 1]]
    layers = magnitude_masks(two_layers(), sparsity=2 / 3, scope="layer")
    assert layers["0.weight"].int().tolist() == [[0, 0], [0, 1]]
    assert layers["1.weight"].int().tolist() == [[0, 1]]


def test_embeddings_biases_and_norms_are_not_pruned():
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    assert list(magnitude_masks(module, sparsity=0.5)) == ["1.weight"]


@given(sparsity=st.floats(0, 1), scope=st.sampled_from(["global", "layer"]), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_sparsity_is_reached_within_one_element(sparsity, scope, seed):
    module = network(seed)
    masks = magnitude_masks(module, sparsity=sparsity, scope=scope)
    apply_masks(module, masks)
    count = sum(mask.numel() for mask in masks.values())
    layers = len(masks) if scope == "layer" else 1
    assert abs(measure_sparsity(module) * count - sparsity * count) <= layers


@given(
    n=st.integers(1, 8),
    extra=st.integers(0, 7),
    blocks=st.integers(1, 5),
    rows=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_every_block_keeps_exactly_n(n, extra, blocks, rows, seed):
    m = n + extra
    weight = torch.randn(rows, m * blocks, generator=torch.Generator().manual_seed(seed))
    mask = n_of_m_mask(weight, n=n, m=m)
    assert (mask.reshape(-1, m).sum(1) == n).all()
    kept = weight.abs().reshape(-1, m).masked_fill(~mask.reshape(-1, m), float("inf")).amin(1)
    gone = weight.abs().reshape(-1, m).masked_fill(mask.reshape(-1, m), -1.0).amax(1)
    assert (kept >= gone).all()


@given(seed=st.integers(0, 1000), optimizer=st.sampled_from(["sgd", "adamw"]))
@settings(max_examples=15, deadline=None)
def test_nothing_is_ever_unpruned_while_training_goes_on(seed, optimizer):
    module = network(seed)
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    }[optimizer]
    optimizer = make(module.parameters())
    gone = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in module.named_parameters() if p.ndim > 1}
    # A step before, so that momentum would move what is pruned.
    module(torch.randn(4, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    with MaskKeeper(module, magnitude_masks(module, sparsity=0.1)).following(optimizer) as keeper:
        for step in range(6):
            sparsity = cubic_sparsity(step, initial=0.1, final=0.8, start=0, steps=5)
            keeper.tighten(magnitude_masks(module, sparsity=sparsity))
            optimizer.zero_grad()
            module(torch.randn(4, 1, 8, 8)).square().mean().backward()
            optimizer.step()
            for name, parameter in module.named_parameters():
                if name in gone:
                    assert (parameter[gone[name]] == 0).all()
                    gone[name] |= parameter.detach() == 0
    assert measure_sparsity(module) >= 0.8 - 1 / 176


def test_tighten_does_not_bring_a_weight_back():
    module = two_layers()
    keeper = MaskKeeper(module, magnitude_masks(module, sparsity=0.5))
    keeper.tighten({"0.weight": torch.ones(2, 2, dtype=torch.bool)})
    assert keeper.masks["0.weight"].int().tolist() == [[0, 0], [1, 1]]
    assert measure_sparsity(module) == 0.5


def test_released_it_no_longer_follows():
    module = two_layers()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    masks = {"0.weight": torch.tensor([[True, False], [True, True]])}
    with MaskKeeper(module, masks).following(optimizer):
        assert module[0].weight[0, 1] == 0
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert (module[0].weight != 0).all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: magnitude_masks(network(), sparsity=1.5), "sparsity"),
        (lambda: magnitude_masks(network(), sparsity=0.5, scope="row"), "scope"),
        (lambda: magnitude_masks(nn.ReLU(), sparsity=0.5), "module"),
        (lambda: measure_sparsity(nn.ReLU()), "module"),
        (lambda: n_of_m_mask(torch.ones(2, 6), n=2, m=4), "divisible by 4"),
        (lambda: n_of_m_mask(torch.ones(2, 4), n=5, m=4), "n and m"),
        (lambda: apply_masks(network(), {"9.weight": torch.ones(1)}), "masks"),
        (lambda: apply_masks(two_layers(), {"0.weight": torch.ones(3)}), "0.weight"),
    ],
)
def test_what_cannot_be_is_named(call, named):
    with pytest.raises(InvalidParameterError, match=named):
        call()

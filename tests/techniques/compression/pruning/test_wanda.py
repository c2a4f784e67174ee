import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning import wanda_mask, wanda_masks


def test_wanda_by_hand():
    weight = torch.tensor([[4.0, 0.0, 1.0, -1.0], [3.0, -2.0, -1.0, -3.0], [-3.0, 1.0, 0.0, 2.0]])
    norms = torch.tensor([1.0, 2.0, 8.0, 3.0])
    # Scores |W| ||X||:  4 0 8 3 | 3 4 8 9 | 3 2 0 6. Half of each row stays.
    assert wanda_mask(weight, norms, sparsity=0.5).int().tolist() == [[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    # Magnitude alone would keep the 3 and not the -1 of the second row.
    assert wanda_mask(weight, torch.ones(4), sparsity=0.5).int().tolist()[1] == [1, 0, 0, 1]


def test_wanda_one_of_two_by_hand():
    weight, norms = torch.tensor([[1.0, 2.0, 5.0, 1.0]]), torch.tensor([3.0, 1.0, 1.0, 4.0])
    # Scores 3 2 | 5 4
    assert wanda_mask(weight, norms, n_of_m=(1, 2)).int().tolist() == [[1, 0, 1, 0]]


@given(sparsity=st.floats(0, 1), rows=st.integers(1, 5), columns=st.integers(1, 20), seed=st.integers(0, 99))
@settings(deadline=None)
def test_every_row_reaches_its_sparsity_within_one_element(sparsity, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, norms = torch.randn(rows, columns, generator=generator), torch.rand(columns, generator=generator)
    gone = (~wanda_mask(weight, norms, sparsity=sparsity)).sum(1)
    assert ((gone - sparsity * columns).abs() <= 0.5 + 1e-9).all()


def test_norms_come_from_what_each_layer_is_given():
    module = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))
    module[0].weight.data = torch.tensor([[2.0, 1.0]])
    inputs = {"x": np.array([[1.0, 3.0], [0.0, 4.0]], np.float32)}
    # Norms 1 and 5: scores 2 and 5.
    masks = wanda_masks(module, inputs, sparsity=0.5)
    assert masks["0.weight"].int().tolist() == [[0, 1]]
    assert set(masks) == {"0.weight", "1.weight"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({}, "not both"), ({"sparsity": 0.5, "n_of_m": (2, 4)}, "not both"), ({"sparsity": 2}, "sparsity")],
)
def test_what_cannot_be_is_named(arguments, named):
    with pytest.raises(InvalidParameterError, match=named):
        wanda_mask(torch.ones(2, 4), torch.ones(4), **arguments)
    with pytest.raises(InvalidParameterError, match="shapes"):
        wanda_mask(torch.ones(2, 4), torch.ones(3), sparsity=0.5)

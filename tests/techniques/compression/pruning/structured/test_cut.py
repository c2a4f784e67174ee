import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.cut import Cut, composed, cut_layers, size, unit_of


def test_a_linear_layer_by_hand():
    module = nn.Sequential(nn.Linear(3, 2))
    module[0].weight.data = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    module[0].bias.data = torch.tensor([7.0, 8.0])
    cut_layers(module, {"0": Cut(outputs=(1,), inputs=(0, 2))})
    assert module[0].weight.tolist() == [[4.0, 6.0]]
    assert module[0].bias.tolist() == [8.0]
    assert (module[0].in_features, module[0].out_features) == (2, 1)


@pytest.mark.parametrize(
    ("layer", "given"),
    [
        (nn.Conv2d(4, 6, 3), (2, 4, 5, 5)),
        (nn.Conv1d(4, 6, 3), (2, 4, 5)),
        (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
        (nn.BatchNorm2d(4), (2, 4, 5, 5)),
        (nn.LayerNorm(4), (2, 4)),
        (nn.GroupNorm(2, 4), (2, 4, 3)),
        (nn.PReLU(4), (2, 4, 3)),
    ],
)
def test_a_cut_layer_runs_on_what_is_left(layer, given):
    module = nn.Sequential(layer).eval()
    cut_layers(module, {"0": Cut(inputs=(0, 1))})
    tensor = torch.randn(given)[:, :2]
    assert module(tensor).shape[:2] == (2, 6 if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1 else 2)
    assert size(module[0], "in") == 2


def test_a_cut_convolution_computes_the_same_channels():
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).eval()
    images = torch.randn(2, 3, 6, 6)
    expected = module(images)[:, [0, 3]]
    cut_layers(module, {"0": Cut(outputs=(0, 3)), "1": Cut(outputs=(0, 3))})
    torch.testing.assert_close(module(images), expected)


def test_an_embedding_loses_columns():
    module = nn.Sequential(nn.Embedding(7, 4))
    expected = module(torch.tensor([5]))[:, [1, 2]]
    cut_layers(module, {"0": Cut(outputs=(1, 2))})
    assert torch.equal(module(torch.tensor([5])), expected)


def test_what_cannot_be_cut_has_no_size():
    assert size(nn.Conv2d(4, 4, 3, groups=2), "out") is None
    assert size(nn.LayerNorm((2, 3)), "out") is None
    assert size(nn.PReLU(), "out") is None
    assert size(nn.Embedding(3, 4), "in") is None
    assert size(nn.LSTM(3, 4), "out") is None
    assert unit_of(nn.GroupNorm(2, 8)) == 4


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_two_cuts_are_the_one_they_compose_to(data):
    outputs = tuple(sorted(data.draw(st.sets(st.integers(0, 7), min_size=1))))
    inputs = tuple(sorted(data.draw(st.sets(st.integers(0, 5), min_size=1))))
    again = tuple(sorted(data.draw(st.sets(st.integers(0, len(outputs) - 1), min_size=1))))
    first, second = {"0": Cut(outputs=outputs, inputs=inputs)}, {"0": Cut(outputs=again)}
    torch.manual_seed(0)
    stepwise, at_once = nn.Sequential(nn.Linear(6, 8)), nn.Sequential(nn.Linear(6, 8))
    at_once.load_state_dict(stepwise.state_dict())
    cut_layers(stepwise, first)
    cut_layers(stepwise, second)
    cut_layers(at_once, composed(first, second))
    assert torch.equal(stepwise[0].weight, at_once[0].weight)
    assert torch.equal(stepwise[0].bias, at_once[0].bias)


@pytest.mark.parametrize("kept", [(), (1, 0), (0, 0), (-1, 2)])
def test_positions_must_ascend(kept):
    with pytest.raises(InvalidParameterError, match="ascending"):
        Cut(outputs=kept)


def test_what_is_not_there_is_named():
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(ModelError, match="'5'"):
        cut_layers(module, {"5": Cut(outputs=(0,))})
    with pytest.raises(ModelError, match="ReLU"):
        cut_layers(module, {"1": Cut(outputs=(0,))})
    with pytest.raises(InvalidParameterError, match="below 2"):
        cut_layers(module, {"0": Cut(outputs=(2,))})

import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation import shallow_copy
from halve.techniques.compression.distillation.copies import block_list


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(6))
        self.head = nn.Linear(4, 2)

    def forward(self, points):
        hidden = self.stem(points)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)


def test_the_copy_has_the_kept_blocks_in_order_and_shares_nothing():
    torch.manual_seed(0)
    model = Encoder().eval()
    copied = shallow_copy(model, [0, 2, 5])
    assert (len(model.blocks), len(copied.blocks)) == (6, 3)
    for number, kept in enumerate((0, 2, 5)):
        assert torch.equal(copied.blocks[number][0].weight, model.blocks[kept][0].weight)
    points = torch.randn(2, 3)
    hidden = model.stem(points)
    for kept in (0, 2, 5):
        hidden = hidden + model.blocks[kept](hidden)
    assert torch.equal(copied(points), model.head(hidden))
    with torch.no_grad():
        copied.head.weight.zero_()
    assert model.head.weight.abs().sum() > 0


def test_the_list_is_found_or_named():
    model = Encoder()
    assert block_list(model) == "blocks"
    assert len(shallow_copy(model, [1], "blocks").blocks) == 1
    assert len(shallow_copy(model, [0], "blocks.3").blocks[3]) == 1
    assert block_list(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == ""


def test_bad_input_is_refused():
    model = Encoder()
    for keep in ([], [6], [-1], [2, 1], [1, 1]):
        with pytest.raises(InvalidParameterError, match=r"keep must be rising numbers of blocks, in \[0, 5\]"):
            shallow_copy(model, keep)
    with pytest.raises(InvalidParameterError, match="path must be the name of a ModuleList or Sequential"):
        shallow_copy(model, [0], "head")
    with pytest.raises(ModelError, match=r"Linear must hold a list of like blocks\. Got none"):
        block_list(nn.Linear(2, 2))

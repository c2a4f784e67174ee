import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import block_effects, least_blocks, removable_blocks, remove_blocks
from halve.techniques.compression.pruning.structured.depth import Block
from halve.techniques.compression.pruning.structured.groups import answer


class Add(nn.Module):
    def __init__(self, amount):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.constant_(self.layer.bias, amount)

    def forward(self, x):
        return x + self.layer(x)


INPUTS = {"x": np.zeros((3, 2), np.float32)}


def stack(*amounts):
    return nn.Sequential(*(Add(amount) for amount in amounts)).eval()


def test_effects_by_hand():
    # The answer is 1 + 4 + 5 = 10 everywhere; without a block it is off by the block's amount.
    assert block_effects(stack(1.0, 4.0, 5.0), INPUTS) == pytest.approx({"0": 0.1, "1": 0.4, "2": 0.5})


def test_the_least_go_first_and_what_is_gone_counts():
    # Without 3 the best second to go is -2.5 (together 0.5 off), not 2 (together 5 off).
    assert [block.name for block in least_blocks(stack(2.9, -2.5, 2.0, 9.0), INPUTS, count=3)] == ["2", "1", "0"]
    assert least_blocks(stack(1.0), INPUTS, count=0) == ()


def test_transformer_layers_and_residual_blocks_can_go(build):
    for name, expected in (("bert", ["bert.encoder.layer.0", "bert.encoder.layer.1"]), ("residual", ["network.6"])):
        make, inputs = build[name]
        assert [block.name for block in removable_blocks(make(), inputs())] == expected


def test_without_a_block_its_input_is_handed_on(build):
    make, inputs = build["encoder"]
    module = make()
    blocks = removable_blocks(module, inputs())
    assert [block.name for block in blocks] == ["encoder.layers.0", "encoder.layers.1"]
    smaller = remove_blocks(module, blocks[:1])
    assert answer(smaller, inputs()).shape == (8, 5)
    assert len(list(smaller.parameters())) < len(list(module.parameters()))


def test_a_block_that_returns_a_tuple_still_does():
    class Tuples(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([self.Layer(), self.Layer()])

        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Linear(2, 2)

            def forward(self, x, flag=None):
                return (self.inner(x), flag)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x, flag=1)[0]
            return x

    module = Tuples().eval()
    blocks = removable_blocks(module, INPUTS)
    assert all(block.returns_tuple for block in blocks)
    assert torch.equal(answer(remove_blocks(module, blocks), INPUTS), torch.zeros(3, 2))


def test_what_cannot_be_is_named():
    with pytest.raises(ModelError, match="no block"):
        remove_blocks(stack(1.0), [Block(name="7")])
    with pytest.raises(InvalidParameterError, match="count"):
        least_blocks(stack(1.0), INPUTS, count=2)
    with pytest.raises(InvalidParameterError, match="at least one row"):
        block_effects(stack(1.0), {"x": np.zeros((0, 2), np.float32)})

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import RebuildSpecification, prunable_groups, rebuild, reconstruct
from halve.techniques.compression.pruning.structured.cut import Cut
from halve.techniques.compression.pruning.structured.groups import answer, cuts_for


def halved(module, inputs):
    groups = prunable_groups(module, inputs)
    kept = {group.name: tuple(range(0, group.units, 2)) for group in groups}
    return RebuildSpecification(layers=cuts_for(groups, kept))


def settled(module, inputs):
    """Give batch norms the statistics of the inputs, as training would have."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
            layer.train()
    answer(module, inputs)
    return module.eval()


def error(module, parent, inputs):
    return float((answer(module, inputs) - answer(parent, inputs)).square().mean())


def test_a_copy_takes_the_place_of_what_is_lost():
    # Neuron 1 is twice neuron 0 plus 3, so the reader of both, 5 and 7, reads neuron 0 with 5 + 14 and gains 21.
    module = nn.Sequential(nn.Linear(1, 2), nn.Identity(), nn.Linear(2, 1)).eval()
    module[0].weight.data, module[0].bias.data = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 3.0])
    module[2].weight.data, module[2].bias.data = torch.tensor([[5.0, 7.0]]), torch.tensor([1.0])
    inputs = {"x": np.linspace(-1, 1, 50, dtype=np.float32)[:, None]}
    specification = RebuildSpecification(layers={"0": Cut(outputs=(0,)), "2": Cut(inputs=(0,))})
    smaller = rebuild(module, specification)
    reconstruct(smaller, module, specification, inputs, ridge=1e-9)
    torch.testing.assert_close(smaller[2].weight, torch.tensor([[19.0]]))
    torch.testing.assert_close(smaller[2].bias, torch.tensor([22.0]))


@pytest.mark.parametrize("name", ["residual", "plain", "encoder"])
def test_it_comes_closer_to_the_parent(build, name):
    make, make_inputs = build[name]
    module, inputs = settled(make(), make_inputs(64)), make_inputs(64)
    specification = halved(module, inputs)
    smaller = rebuild(module, specification).eval()
    before = error(smaller, module, inputs)
    reconstruct(smaller, module, specification, inputs)
    assert error(smaller, module, inputs) < before
    assert not smaller.training


def test_without_a_cut_nothing_changes_but_statistics(build):
    make, inputs = build["plain"]
    module = make()
    same = rebuild(module, RebuildSpecification())
    reconstruct(same, module, RebuildSpecification(), inputs())
    assert torch.equal(answer(same, inputs()), answer(module, inputs()))


def test_what_cannot_be_is_named(build):
    make, inputs = build["plain"]
    module = make()
    with pytest.raises(InvalidParameterError, match="ridge"):
        reconstruct(module, module, RebuildSpecification(), inputs(), ridge=0)
    with pytest.raises(InvalidParameterError, match="at least one row"):
        reconstruct(module, module, RebuildSpecification(), {"x": np.ones((0, 6), np.float32)})
    with pytest.raises(ModelError, match="'9'"):
        reconstruct(module, module, RebuildSpecification(layers={"9": Cut(inputs=(0,))}), inputs())
    with pytest.raises(ModelError, match="failed"):
        reconstruct(module, module, RebuildSpecification(), {"x": np.ones((2, 6), np.float32)[:, :5]})

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import prunable_groups
from halve.techniques.compression.pruning.structured.groups import answer, cuts_for, opened


def table(groups):
    return {group.name: (group.width, group.unit) for group in groups}


def test_a_residual_addition_ties_both_its_sides(build):
    make, inputs = build["residual"]
    groups = {group.name: group for group in prunable_groups(make(), inputs())}
    assert {name: group.width for name, group in groups.items()} == {
        "network.0": 16,
        "network.3": 32,
        "network.6.body.0": 32,
    }
    tied = {(member.layer, member.axis) for member in groups["network.3"].members}
    assert {("network.3", "out"), ("network.6.body.3", "out"), ("network.6.body.0", "in"), ("network.9", "in")} <= tied


def test_neither_inputs_nor_outputs_are_pruned(case):
    module, inputs = case
    outputs = {
        name for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and layer.out_features in (3, 5)
    }
    members = [member for group in prunable_groups(module, inputs) for member in group.members]
    assert outputs
    assert not any(member.layer in outputs and member.axis == "out" for member in members)
    assert not any(member.layer in ("network.0", "0") and member.axis == "in" for member in members)


def test_heads_go_whole_and_neurons_alone(build):
    make, inputs = build["encoder"]
    found = table(prunable_groups(make(), inputs()))
    assert found["encoder.layers.0.self_attn.query"] == (32, 8)
    assert found["encoder.layers.1.linear1"] == (64, 1)


def test_bert_has_heads_neurons_and_a_stream(build):
    make, inputs = build["bert"]
    found = table(prunable_groups(make(), inputs()))
    assert found["bert.encoder.layer.0.attention.self.query"] == (32, 8)
    assert found["bert.encoder.layer.1.intermediate.dense"] == (64, 1)
    assert found["bert.embeddings.word_embeddings"] == (32, 1)
    assert len(found) == 5


def test_flattened_channels_take_all_their_places_along():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2)).eval()
    (group,) = prunable_groups(module, {"x": np.ones((2, 1, 5, 5), np.float32)})
    reader = group.readers[0]
    assert reader.layer == "3"
    assert reader.positions[1] == tuple(range(9, 18))


def test_groups_of_a_group_norm_go_whole():
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    (group,) = prunable_groups(module, {"x": np.ones((2, 1, 7, 7), np.float32)})
    assert (group.width, group.unit, group.units) == (8, 2, 4)


def test_depthwise_filters_go_with_their_channels():
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)).eval()
    (group,) = prunable_groups(module, {"x": np.ones((2, 1, 7, 7), np.float32)})
    assert {member.layer for member in group.members} == {"0", "1", "2"}


def test_a_view_with_a_fixed_number_of_channels_cannot_be_pruned():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.last(self.first(x).reshape(-1, 2, 4).flip(1).reshape(-1, 8))

    assert prunable_groups(Fixed().eval(), {"x": np.ones((2, 3), np.float32)}) == ()


def test_gradients_and_mode_of_the_caller_do_not_matter(build):
    make, inputs = build["plain"]
    module = make().train().requires_grad_(False)
    with torch.no_grad():
        assert len(prunable_groups(module, inputs())) == 2
    assert module.training
    assert not module[0].weight.requires_grad


def test_opened_modules_answer_alike(case):
    module, inputs = case
    torch.testing.assert_close(answer(opened(module), inputs), answer(module, inputs), rtol=1e-4, atol=1e-5)


def test_removed_units_that_are_zero_change_nothing(build):
    make, inputs = build["residual"]
    module = make()
    groups = prunable_groups(module, inputs())
    group = groups[0]
    with torch.no_grad():
        for member in group.readers:
            module.get_submodule(member.layer).weight[:, list(member.kept((1, 5)))] = 0
    kept = tuple(unit for unit in range(group.units) if unit not in (1, 5))
    from halve.techniques.compression.pruning.structured.cut import cut_layers

    smaller = opened(module)
    cut_layers(smaller, cuts_for(groups, {group.name: kept}))
    torch.testing.assert_close(answer(smaller, inputs()), answer(module, inputs()))


def test_what_cannot_be_is_named(build):
    make, inputs = build["plain"]
    groups = prunable_groups(make(), inputs())
    with pytest.raises(InvalidParameterError, match="at least one row"):
        prunable_groups(make(), {"x": np.ones((0, 6), np.float32)})
    with pytest.raises(ModelError, match="failed on 2 rows"):
        prunable_groups(make(), {"x": np.ones((2, 5), np.float32)})
    with pytest.raises(ModelError, match="must return one tensor"):
        answer(nn.LSTM(3, 3), {"x": np.ones((2, 3), np.float32)})
    with pytest.raises(InvalidParameterError, match="one of"):
        cuts_for(groups, {"nothing": (0,)})
    with pytest.raises(InvalidParameterError, match="at least one"):
        cuts_for(groups, {"0": ()})

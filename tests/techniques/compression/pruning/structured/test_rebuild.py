import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from halve.errors import ModelError
from halve.techniques.compression.pruning import (
    Plan,
    RebuildSpecification,
    prunable_groups,
    rebuild,
    removable_blocks,
    shrink,
    specification_of,
)
from halve.techniques.compression.pruning.structured.cut import Cut
from halve.techniques.compression.pruning.structured.depth import Block
from halve.techniques.compression.pruning.structured.groups import answer
from halve.techniques.compression.pruning.structured.rebuild import GroupChange

GROUPS = {}


@given(data=st.data(), name=st.sampled_from(["residual", "plain", "encoder", "bert"]))
@settings(max_examples=25, deadline=None)
def test_a_pruned_model_is_its_rebuilt_self_bit_for_bit(build, tmp_path_factory, data, name):
    make, make_inputs = build[name]
    module, inputs = make(), make_inputs()
    groups = GROUPS.setdefault(name, prunable_groups(module, inputs))
    kept = {
        group.name: tuple(sorted(data.draw(st.sets(st.integers(0, group.units - 1), min_size=1), label=group.name)))
        for group in groups
    }
    plan = Plan(kept=kept, widths={}, predicted_ratio=1.0, lost=0.0)
    pruned = shrink(module, plan, inputs, groups=groups).eval()
    specification = RebuildSpecification.from_json(specification_of(plan, groups).to_json())
    expected = answer(pruned, inputs)
    assert torch.equal(answer(rebuild(module, specification).eval(), inputs), expected)
    # And by its weights, from a parent that knows nothing of them.
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file({key: value.contiguous() for key, value in pruned.state_dict().items()}, file)
    stranger = make()
    with torch.no_grad():
        for parameter in stranger.parameters():
            parameter.zero_()
    fresh = rebuild(stranger, specification).eval()
    fresh.load_state_dict(load_file(file))
    assert torch.equal(answer(fresh, inputs), expected)


def test_the_document_is_plain_and_the_same_each_time(tmp_path):
    specification = RebuildSpecification(
        layers={"b": Cut(inputs=(0, 2)), "a": Cut(outputs=(1,))},
        removed_blocks=(Block(name="layers.1", returns_tuple=True),),
        groups=(GroupChange(name="a", before=2, after=1),),
    )
    specification.write(tmp_path / "rebuild.json")
    assert json.loads((tmp_path / "rebuild.json").read_text()) == {
        "schema": "halve.pruned/1",
        "groups": [{"name": "a", "before": 2, "after": 1}],
        "removed_blocks": [{"name": "layers.1", "returns_tuple": True}],
        "layers": {"a": {"out": [1]}, "b": {"in": [0, 2]}},
    }
    assert RebuildSpecification.read(tmp_path / "rebuild.json") == specification


def test_removed_blocks_are_rebuilt_too(build):
    make, inputs = build["bert"]
    module = make()
    block = removable_blocks(module, inputs())[1]
    rebuilt = rebuild(module, RebuildSpecification(removed_blocks=(block,)))
    assert answer(rebuilt, inputs()).shape == (8, 5)
    assert len(list(rebuilt.parameters())) < len(list(module.parameters()))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "no rebuild specification"),
        ("not json", "no rebuild specification"),
        ('{"schema": "halve.pruned/9"}', "schema halve.pruned/1"),
        ('{"schema": "halve.pruned/1"}', "groups|layers"),
        (
            '{"schema": "halve.pruned/1", "groups": [], "removed_blocks": [], "layers": {"a": {"out": [2, 1]}}}',
            "damaged",
        ),
    ],
)
def test_a_damaged_document_is_named(text, named):
    with pytest.raises(ModelError, match=named):
        RebuildSpecification.from_json(text)


def test_a_parent_of_other_layers_is_refused(build):
    make, _ = build["plain"]
    with pytest.raises(ModelError, match="no layer"):
        rebuild(make(), RebuildSpecification(layers={"9": Cut(outputs=(0,))}))

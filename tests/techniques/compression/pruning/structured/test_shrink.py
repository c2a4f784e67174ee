import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.pruning import Plan, prunable_groups, shrink, specification_of
from halve.techniques.compression.pruning.structured.groups import answer


def halves(groups):
    kept = {group.name: tuple(range(0, group.units, 2)) for group in groups}
    widths = {group.name: len(kept[group.name]) * group.unit for group in groups}
    return Plan(kept=kept, widths=widths, predicted_ratio=0.5, lost=0.0)


def test_it_is_smaller_and_answers_in_the_same_shape(case):
    module, inputs = case
    groups = prunable_groups(module, inputs)
    before = sum(parameter.numel() for parameter in module.parameters())
    smaller = shrink(module, halves(groups), inputs)
    assert sum(parameter.numel() for parameter in smaller.parameters()) < 0.65 * before
    assert answer(smaller, inputs).shape == answer(module, inputs).shape
    assert sum(parameter.numel() for parameter in module.parameters()) == before
    again = {group.name: group.width for group in prunable_groups(smaller, inputs)}
    assert again == {name: width for name, width in halves(groups).widths.items() if name in again}
    assert again


def test_the_table_names_widths_before_and_after(build):
    make, inputs = build["plain"]
    groups = prunable_groups(make(), inputs())
    changes = specification_of(halves(groups), groups).groups
    assert [(change.name, change.before, change.after) for change in changes] == [("0", 24, 12), ("2", 24, 12)]


def test_a_plan_for_another_module_is_refused(build):
    make, inputs = build["plain"]
    plan = Plan(kept={"nothing": (0,)}, widths={}, predicted_ratio=1.0, lost=0.0)
    with pytest.raises(InvalidParameterError, match="nothing"):
        shrink(make(), plan, {"x": np.ones((2, 6), np.float32)})
    assert inputs() is not None

"""A plan carried out: the same module, physically smaller."""

from typing import TYPE_CHECKING

from halve.techniques.compression.pruning.structured.groups import Group, Inputs, cuts_for, prunable_groups
from halve.techniques.compression.pruning.structured.plan import Plan
from halve.techniques.compression.pruning.structured.rebuild import GroupChange, RebuildSpecification, rebuild

if TYPE_CHECKING:
    from torch import nn


def shrink(module: "nn.Module", plan: Plan, inputs: Inputs, *, groups: tuple[Group, ...] | None = None) -> "nn.Module":
    """Return a deep copy without the units that the plan leaves out.

    Args:
        module: The module the plan was made for; it stays as it is.
        plan: Which units stay.
        inputs: Real inputs, at least one row, to find the groups.
        groups: The groups, if they are known.

    Raises:
        InvalidParameterError: If the plan names a group or unit that is not there.
        ModelError: If the module cannot be run or traced.
        MissingExtraError: If torch or torch-pruning is not installed.
    """
    found = prunable_groups(module, inputs) if groups is None else groups
    return rebuild(module, specification_of(plan, found))


def specification_of(plan: Plan, groups: tuple[Group, ...]) -> RebuildSpecification:
    """Return what `rebuild` needs to carry the plan out.

    Raises:
        InvalidParameterError: If the plan names a group or unit that is not there.
    """
    changes = tuple(
        GroupChange(name=group.name, before=group.width, after=len(set(plan.kept[group.name])) * group.unit)
        for group in groups
        if group.name in plan.kept
    )
    return RebuildSpecification(layers=cuts_for(groups, plan.kept), groups=changes)

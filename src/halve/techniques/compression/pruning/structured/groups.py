"""What can only be pruned together: channel groups, neurons and attention heads, found by running the module.

A channel that one layer makes is read by others, and a residual addition ties the channels of both its sides; all of
them go or stay as one. torch-pruning's dependency graph finds these ties from the backward graph. This module turns
them into plain positions, and tries each group once: with half of its units gone, the module must still run and answer
in the same shape. That leaves out, without any list of special cases, the classifier's outputs, views with a fixed
number of channels, and layers of a kind that cannot be cut.

Source: Fang et al. 2023, arXiv:2301.12900 (dependency graph).
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression.pruning.structured.cut import Cut, Positions, cut_layers, size, unit_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Inputs = Mapping[str, NDArray[Any]]
"""Named input tensors, batch axis first, in the order that `forward` takes them."""

Axis = Literal["out", "in"]

TRIED_ROWS = 2
"""Rows of the inputs that groups are tried on."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One layer's share in a group.

    Args:
        layer: Its name in the module.
        axis: `out`: what it gives; `in`: what it takes.
        positions: For each unit the positions that go with it, ascending.
    """

    layer: str
    axis: Axis
    positions: tuple[Positions, ...]

    def kept(self, units: Positions) -> Positions:
        """Return the positions of these units, ascending."""
        return tuple(sorted(position for unit in units for position in self.positions[unit]))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that go or stay together.

    Args:
        name: Of the first layer that makes them.
        width: How many channels, >= 2.
        unit: Channels that can only go at once: the head size of attention heads, else mostly 1. Divides the width.
        members: Every layer that makes, carries or reads them.
    """

    name: str
    width: int
    unit: int
    members: tuple[Member, ...]

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.width // self.unit

    @property
    def readers(self) -> tuple[Member, ...]:
        """The members that take the channels in: convolutions and linear layers."""
        return tuple(member for member in self.members if member.axis == "in")


def prunable_groups(module: "nn.Module", inputs: Inputs) -> tuple[Group, ...]:
    """Return the groups whose units can be taken out, in the order of the module's layers.

    Never the network's inputs, never its outputs. Names are those of the opened module (`opened`): the layers inside a
    `torch.nn.MultiheadAttention` are `query`, `key`, `value` and `out_proj`.

    Args:
        module: Any module whose forward takes the inputs in order and returns one tensor.
        inputs: Real inputs, at least one row; names are not used.

    Raises:
        InvalidParameterError: If there is no row.
        ModelError: If the module cannot be run, or not be traced.
        MissingExtraError: If torch or torch-pruning is not installed.
    """
    rows = first_rows(inputs, TRIED_ROWS)
    model = opened(module).eval()
    expected = answer(model, rows)
    names = {layer: name for name, layer in model.named_modules()}
    groups = [
        group
        for found in _traced(model, rows)
        if (group := _as_group(found, names)) is not None and _can_be_cut(model, group, rows, expected)
    ]
    order = {name: number for number, name in enumerate(names.values())}
    return tuple(sorted(groups, key=lambda group: order[group.name]))


def opened(module: "nn.Module") -> "nn.Module":
    """Return a deep copy in which every `nn.MultiheadAttention` is four linear layers."""
    require_torch()
    from halve.techniques.compression.pruning.structured.attention import open_attentions

    model = copy.deepcopy(module)
    open_attentions(model)
    return model


def cuts_for(groups: tuple[Group, ...], kept: Mapping[str, Positions]) -> dict[str, Cut]:
    """Return the cut of each layer if these units of each named group are kept; other groups stay whole.

    Raises:
        InvalidParameterError: If there is no such group, a unit is not there, or none is kept.
    """
    by_name = {group.name: group for group in groups}
    found: dict[str, dict[str, Positions]] = {}
    for name, units in kept.items():
        if name not in by_name:
            raise InvalidParameterError("group", rule=f"one of {', '.join(by_name)}", value=name)
        group = by_name[name]
        ordered = tuple(sorted(set(units)))
        if not ordered or ordered[0] < 0 or ordered[-1] >= group.units:
            raise InvalidParameterError(name, rule=f"units from 0 to {group.units - 1}, at least one", value=units)
        if len(ordered) < group.units:
            for member in group.members:
                found.setdefault(member.layer, {})[member.axis] = member.kept(ordered)
    return {layer: Cut(outputs=axes.get("out"), inputs=axes.get("in")) for layer, axes in found.items()}


def first_rows(inputs: Inputs, count: int) -> dict[str, NDArray[Any]]:
    """Return exactly so many rows of the inputs, repeated where there are too few.

    Raises:
        InvalidParameterError: If there is no row.
    """
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    return {name: array[np.arange(count) % len(array)] for name, array in inputs.items()}


def tensors(inputs: Inputs) -> "list[torch.Tensor]":
    """Return the inputs as tensors of their own, in order."""
    require_torch()
    import torch

    return [torch.from_numpy(np.array(array)) for array in inputs.values()]


def answer(module: "nn.Module", inputs: Inputs) -> "torch.Tensor":
    """Return what the module answers, without gradients.

    Raises:
        ModelError: If it fails, or answers no tensor.
    """
    arguments = tensors(inputs)
    import torch

    try:
        with torch.no_grad():
            outputs = module(*arguments)
    except Exception as error:  # It is the user's own code.
        raise ModelError(f"{type(module).__name__} failed on {len(arguments[0])} rows: {error}") from error
    if not isinstance(outputs, torch.Tensor):
        raise ModelError(f"{type(module).__name__} must return one tensor. Got {type(outputs).__name__}.")
    return outputs


def require_torch() -> None:
    """Check that torch is there.

    Raises:
        MissingExtraError: If it is not.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("pruning", package="torch", extra="torch") from None


def _traced(model: "nn.Module", rows: Inputs) -> list[Any]:
    """Return torch-pruning's groups, each with all its channels."""
    try:
        import torch_pruning
    except ImportError:
        raise MissingExtraError("structured pruning", package="torch-pruning", extra="torch") from None
    import torch
    from torch import nn

    traced = copy.deepcopy(model).requires_grad_(True)
    twins = dict(zip(traced.modules(), model.modules(), strict=True))
    roots = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear]
    try:
        # It follows the backward graph, so gradients must be on whatever the caller has set.
        with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(traced, example_inputs=tuple(tensors(rows)), verbose=False)
            found = list(graph.get_all_groups(root_module_types=roots))
            return [[_item(item, graph, twins) for item in group] for group in found]
    except (MissingExtraError, ModelError):
        raise
    except Exception as error:  # Its own assertions, and whatever the module raises.
        raise ModelError(f"the ties between the layers of {type(model).__name__} cannot be traced: {error}") from error


def _item(item: Any, graph: Any, twins: "dict[nn.Module, nn.Module]") -> tuple[Any, Axis, list[int], list[int]]:
    """Return layer of the untraced model (or what stands for it), axis, positions, and the channel of each."""
    target, handler = item.dep.target.module, item.dep.handler
    axis: Axis = "out" if graph.is_out_channel_pruning_fn(handler) else "in"
    return twins.get(target, target), axis, list(item.idxs), list(item.root_idxs)


def _as_group(items: list[Any], names: "dict[nn.Module, str]") -> Group | None:
    """Return the group, or None if it holds what cannot be cut."""
    import torch

    width = len(items[0][2])
    unit, members = _head_size(items, names), []
    for layer, axis, positions, channels in items:
        if isinstance(layer, torch.Tensor):
            return None  # A parameter that belongs to no layer.
        if layer not in names:
            continue  # An operation without weights.
        if (most := size(layer, axis)) is None or (axis == "out" and len(positions) != most):
            return None  # No kind that can be cut, or only a part of its outputs.
        by_channel: dict[int, list[int]] = {channel: [] for channel in range(width)}
        for position, channel in zip(positions, channels, strict=True):
            by_channel[channel].append(position)
        unit = max(unit, unit_of(layer))
        members.append((names[layer], axis, by_channel))
    # Trap: torch-pruning names an equal pair twice where a module is reached along two ways.
    if width < 2 or width % unit or width // unit < 2 or not any(axis == "in" for _, axis, _ in members):
        return None
    order = {name: number for number, name in enumerate(names.values())}
    members.sort(key=lambda member: (order[member[0]], member[1]))
    units = [range(first, first + unit) for first in range(0, width, unit)]
    return Group(
        name=next(name for name, axis, _ in members if axis == "out"),
        width=width,
        unit=unit,
        members=tuple(
            Member(
                layer=name,
                axis=axis,
                positions=tuple(tuple(sorted(p for channel in unit for p in by_channel[channel])) for unit in units),
            )
            for name, axis, by_channel in members
        ),
    )


def _head_size(items: list[Any], names: "dict[nn.Module, str]") -> int:
    """Return the head size if the group holds the query, key or value of an attention layer, else 1."""
    by_name = {name: layer for layer, name in names.items()}
    for layer, axis, _, _ in items:
        if axis != "out" or layer not in names:
            continue
        owner: Any = by_name[names[layer].rpartition(".")[0]]
        head = getattr(owner, "attention_head_size", None)
        if isinstance(head, int) and any(getattr(owner, part, None) is layer for part in ("query", "key", "value")):
            return head
    return 1


def _can_be_cut(model: "nn.Module", group: Group, rows: Inputs, expected: "torch.Tensor") -> bool:
    half = tuple(range(max(1, group.units // 2)))
    smaller = copy.deepcopy(model)
    try:
        cut_layers(smaller, cuts_for((group,), {group.name: half}))
        return answer(smaller, rows).shape == expected.shape
    except (ModelError, InvalidParameterError):
        return False

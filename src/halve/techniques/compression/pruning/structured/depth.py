"""Fewer layers: whole residual blocks or transformer layers replaced by the identity, those that change least.

A block can go if it answers in the shape of its first input. What it does is measured, not guessed: the module is run
without it, and the answers are compared with its own,

    effect = ||f_without(x) - f(x)||_2 / ||f(x)||_2   over all inputs

Blocks are taken out one after the other, each time the one with the least effect on what is left. Depth costs more
accuracy than width at equal latency on small networks, and less where layers are many and narrow: measure both.

Source: Gromov et al. 2024, arXiv:2403.17887 (layers removed); Men et al. 2024, arXiv:2403.03853 (by influence).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.groups import Inputs, answer, first_rows, require_torch

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of the module that may be replaced by the identity.

    Args:
        name: In the module.
        returns_tuple: Whether it returns its states as the first of a tuple.
    """

    name: str
    returns_tuple: bool = False


def removable_blocks(module: "nn.Module", inputs: Inputs) -> tuple[Block, ...]:
    """Return the children of sequences and lists that have layers of their own and keep their input's shape, in order.

    Raises:
        InvalidParameterError: If there is no row.
        ModelError: If the module fails.
        MissingExtraError: If torch is not installed.
    """
    require_torch()
    import torch
    from torch import nn

    model = copy.deepcopy(module).eval()
    found: dict[str, bool] = {}

    def hook(name: str) -> Any:
        def watch(_: Any, given: Any, answered: Any) -> None:
            output = answered[0] if isinstance(answered, tuple) and answered else answered
            fits = bool(given) and isinstance(given[0], torch.Tensor) and isinstance(output, torch.Tensor)
            if fits and given[0].shape == output.shape:
                found[name] = isinstance(answered, tuple)

        return watch

    for owner_name, owner in model.named_modules():
        if isinstance(owner, nn.Sequential | nn.ModuleList):
            for child_name, child in owner.named_children():
                if any(True for _ in child.children()) and any(True for _ in child.parameters()):
                    child.register_forward_hook(hook(f"{owner_name}.{child_name}".lstrip(".")))
    answer(model, first_rows(inputs, 1))
    order = [name for name, _ in model.named_modules() if name in found]
    return tuple(Block(name=name, returns_tuple=found[name]) for name in order)


def remove_blocks(module: "nn.Module", blocks: Sequence[Block]) -> "nn.Module":
    """Return a deep copy in which these blocks hand their first input on.

    Raises:
        ModelError: If there is no such block.
    """
    require_torch()
    from halve.techniques.compression.pruning.structured.passthrough import Passthrough

    model = copy.deepcopy(module)
    names = dict(model.named_modules())
    for block in blocks:
        if not block.name or block.name not in names:
            raise ModelError(f"the module has no block {block.name!r} to remove.")
        owner, _, last = block.name.rpartition(".")
        setattr(model.get_submodule(owner), last, Passthrough(names[block.name], returns_tuple=block.returns_tuple))
    return model


def block_effects(module: "nn.Module", inputs: Inputs, blocks: Sequence[Block] | None = None) -> dict[str, float]:
    """Return the relative change of the answers without each block, by name: 0 is none.

    Args:
        module: In evaluation mode or not; it is run in evaluation mode.
        inputs: Real inputs, at least one row.
        blocks: Those asked about; `removable_blocks` by default.

    Raises:
        InvalidParameterError: If there is no row.
        ModelError: If the module fails, with or without a block.
    """
    rows = first_rows(inputs, max(1, min((len(array) for array in inputs.values()), default=0)))
    model = copy.deepcopy(module).eval()
    expected = answer(model, rows)
    scale = max(float(expected.norm()), 1e-30)
    asked = removable_blocks(model, rows) if blocks is None else blocks
    return {b.name: float((answer(remove_blocks(model, [b]), rows) - expected).norm()) / scale for b in asked}


def least_blocks(module: "nn.Module", inputs: Inputs, *, count: int) -> tuple[Block, ...]:
    """Return the blocks to take out: one after the other, each time the one with the least effect on the answers.

    Args:
        module: See `block_effects`.
        inputs: Real inputs, at least one row.
        count: How many, from 0 to the number of removable blocks.

    Raises:
        InvalidParameterError: If there are not so many.
        ModelError: If the module fails.
    """
    left, gone = list(removable_blocks(module, inputs)), list[Block]()
    if not 0 <= count <= len(left):
        raise InvalidParameterError("count", rule=f"from 0 to {len(left)}", value=count)
    rows = first_rows(inputs, min(len(array) for array in inputs.values()))
    expected = answer(copy.deepcopy(module).eval(), rows)
    for _ in range(count):
        changes = [
            float((answer(remove_blocks(module, [*gone, block]).eval(), rows) - expected).norm()) for block in left
        ]
        gone.append(left.pop(changes.index(min(changes))))
    return tuple(gone)

"""A shallower copy of a model: some of its blocks, everything else as it was.

Source: Sanh et al. 2019, arXiv:1910.01108, section 3 (start from every other block of the teacher).
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from halve.errors import InvalidParameterError, ModelError

if TYPE_CHECKING:
    from torch import nn


def shallow_copy(module: "nn.Module", keep: Sequence[int], path: str | None = None) -> "nn.Module":
    """Return a copy of the module that has only some blocks of one of its lists, in their order.

    Args:
        module: Any torch module; it stays as it is, and the copy shares nothing with it.
        keep: Numbers of the blocks to keep, from 0, rising; at least one.
        path: Name of the `ModuleList` or `Sequential`; None for the longest one whose blocks are alike.

    Raises:
        InvalidParameterError: If a number is no block, or there is no such list.
        ModelError: If no list of like blocks is found.
    """
    name = block_list(module) if path is None else path
    copied = copy.deepcopy(module)
    blocks = dict(copied.named_modules()).get(name)
    if not _is_list(blocks):
        raise InvalidParameterError("path", rule="the name of a ModuleList or Sequential", value=path)
    count = len(blocks)  # type: ignore[arg-type]
    wanted = list(keep)
    if not wanted or wanted != sorted(set(wanted)) or not 0 <= wanted[0] <= wanted[-1] < count:
        raise InvalidParameterError("keep", rule=f"rising numbers of blocks, in [0, {count - 1}]", value=wanted)
    for number in reversed([number for number in range(count) if number not in wanted]):
        del blocks[number]  # type: ignore[union-attr]
    return copied


def block_list(module: "nn.Module") -> str:
    """Return the name of the longest `ModuleList` or `Sequential` of like blocks; of two as long, the larger one.

    Blocks are alike if they are of one class and their parameters have the same names and shapes; only blocks with
    parameters count.

    Raises:
        ModelError: If there is none of two blocks or more.
    """
    found: list[tuple[int, int, str]] = []
    for name, part in module.named_modules():
        blocks = list(part.children())
        size = sum(parameter.numel() for parameter in part.parameters())
        if _is_list(part) and len(blocks) > 1 and size and len({_kind(block) for block in blocks}) == 1:
            found.append((len(blocks), size, name))
    if not found:
        raise ModelError(f"{type(module).__name__} must hold a list of like blocks. Got none.")
    return max(found)[2]


def _is_list(part: object) -> bool:
    from torch import nn

    return isinstance(part, nn.ModuleList | nn.Sequential)


def _kind(block: "nn.Module") -> tuple[object, ...]:
    shapes = ((name, tuple(parameter.shape)) for name, parameter in block.named_parameters())
    return (type(block), *shapes)

"""Named arrays, cut into batches."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

if TYPE_CHECKING:
    import torch
    from torch import nn

Inputs = Mapping[str, NDArray[Any]]
"""Named arrays in the order that `forward` takes them, batch axis first."""

Augment = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes and returns one batch of named tensors; random ones draw from torch's default generator."""

MASK = "attention_mask"
TOKEN_MULTIPLE = 8
_EVALUATED_AT_ONCE = 256


def cut(batch: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return the batch with its token axis cut to the longest row, rounded up to a multiple of 8."""
    import torch

    mask = batch.get(MASK)
    if mask is None:
        return batch
    tokens = mask.shape[1]
    longest = int(((mask != 0) * torch.arange(1, tokens + 1)).max())
    length = min(tokens, max(1, -(-longest // TOKEN_MULTIPLE)) * TOKEN_MULTIPLE)
    return {
        name: tensor[:, :length] if tensor.ndim >= 2 and tensor.shape[1] == tokens else tensor
        for name, tensor in batch.items()
    }


def predicted_logits(module: "nn.Module", inputs: Inputs) -> NDArray[np.float32]:
    """Return the module's logits for all rows, float32 (rows, classes), in evaluation mode, some hundred at once."""
    import torch

    was_training = module.training
    module.eval()
    with torch.inference_mode():
        parts = [module(*cut(batch).values()).float().numpy() for batch in batches(inputs)]
    module.train(was_training)
    return np.concatenate(parts)


def batches(inputs: Inputs, size: int = _EVALUATED_AT_ONCE) -> "Iterator[dict[str, torch.Tensor]]":
    """Yield the inputs as named tensors, `size` rows at a time."""
    import torch

    rows = rows_of(inputs)
    for start in range(0, rows, size):
        yield {name: torch.from_numpy(array[start : start + size].copy()) for name, array in inputs.items()}


def rows_of(inputs: Inputs, labels: NDArray[np.int64] | None = None) -> int:
    """Return the number of rows.

    Raises:
        InvalidParameterError: If there is none, or lengths differ.
    """
    if not inputs or len(next(iter(inputs.values()))) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    rows = len(next(iter(inputs.values())))
    lengths = {name: len(array) for name, array in inputs.items()}
    lengths |= {} if labels is None else {"labels": len(labels)}
    if set(lengths.values()) != {rows}:
        raise InvalidParameterError("inputs", rule="all of one length, as the labels", value=lengths)
    return rows

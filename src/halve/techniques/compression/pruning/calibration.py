"""What linear layers are given, collected while the module answers real inputs."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

Inputs = Mapping[str, NDArray[Any]]
"""Named input tensors, batch axis first, in the order that `forward` takes them."""


def linear_inputs(module: "nn.Module", inputs: Inputs, *, batch_rows: int = 32) -> "dict[str, torch.Tensor]":
    """Return X X^T of every linear layer, float64 (in, in), summed over all vectors that it is given, by layer name.

    Wanda needs its diagonal, SparseGPT all of it; the vectors themselves, far more, are not kept.

    Args:
        module: Any module; it is run in evaluation mode and left in the mode it was in.
        inputs: Real inputs, at least one row.
        batch_rows: Rows per run, >= 1.

    Raises:
        InvalidParameterError: If there is no row.
        ModelError: If the module fails, or no linear layer is run.
        MissingExtraError: If torch is not installed.
    """
    sums: dict[str, Any] = {}
    layers = linear_layers(module)

    def hook(name: str) -> Callable[..., None]:
        def watch(_: Any, given: Any, __: Any) -> None:
            vectors = given[0].detach().flatten(0, -2).double()
            sums[name] = sums.get(name, 0) + vectors.T @ vectors

        return watch

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        _run(module, inputs, batch_rows=batch_rows)
    finally:
        for handle in handles:
            handle.remove()
    if not sums:
        raise ModelError(f"{type(module).__name__} runs no linear layer.")
    return {name: sums[name] for name in layers if name in sums}


def linear_layers(module: "nn.Module") -> "dict[str, nn.Linear]":
    """Return the linear layers by name.

    Raises:
        MissingExtraError: If torch is not installed.
    """
    try:
        from torch import nn
    except ImportError:
        raise MissingExtraError("pruning", package="torch", extra="torch") from None
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def _run(module: "nn.Module", inputs: Inputs, *, batch_rows: int) -> None:
    import torch

    count = min((len(array) for array in inputs.values()), default=0)
    if count == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    if batch_rows < 1:
        raise InvalidParameterError("batch_rows", rule="at least 1", value=batch_rows)
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for start in range(0, count, batch_rows):
                rows = slice(start, start + batch_rows)
                module(*(torch.from_numpy(np.array(array[rows])) for array in inputs.values()))
    except Exception as error:  # It is the user's own code.
        raise ModelError(f"{type(module).__name__} failed: {error}") from error
    finally:
        module.train(training)

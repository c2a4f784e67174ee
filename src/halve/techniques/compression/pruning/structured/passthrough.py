"""What stands where a block was."""

from types import SimpleNamespace
from typing import Any

import torch  # noqa: TID253 - modules are classes; only `structured` imports this module, inside functions.
from torch import nn  # noqa: TID253


class Passthrough(nn.Module):
    """The identity: hands its first input on, whatever else it is given.

    Args:
        block: What stood here.
        returns_tuple: Whether it returned a tuple, its states first.
    """

    def __init__(self, block: nn.Module, *, returns_tuple: bool = False) -> None:
        super().__init__()
        self.returns_tuple = returns_tuple
        attention = getattr(block, "self_attn", None)
        if attention is not None:
            # nn.TransformerEncoder asks its first layer for it, whatever that is.
            self.self_attn = SimpleNamespace(batch_first=attention.batch_first)

    def forward(self, states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Return the states unchanged, any shape."""
        return (states,) if self.returns_tuple else states

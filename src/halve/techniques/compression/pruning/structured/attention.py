"""Multi-head attention whose heads can be taken out: `torch.nn.MultiheadAttention` with its four products as layers.

`nn.MultiheadAttention` needs heads x head size = width, so fewer heads of the same size do not fit into it. Opened,
the products are `query`, `key`, `value` and `out_proj`, ordinary linear layers, and any number of heads fits:

    O = softmax(Q_h K_h^T / sqrt(d)) V_h  per head h, side by side, times W_out

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; Michel et al. 2019, arXiv:1905.10650 (heads removed).
"""

from typing import Any

import torch  # noqa: TID253 - modules are classes; only `structured` imports this module, inside functions.
from torch import nn  # noqa: TID253


class OpenAttention(nn.Module):
    """The same function as an `nn.MultiheadAttention` of equal query, key and value width, without its fast path.

    Args:
        attention: The layer to open; its weights are copied.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        width = attention.embed_dim
        self.num_attention_heads = attention.num_heads
        self.attention_head_size = width // attention.num_heads
        self.batch_first, self.dropout = attention.batch_first, attention.dropout
        # What nn.TransformerEncoderLayer asks before its fast path, which would skip this class.
        self.in_proj_weight = self.in_proj_bias = None
        self._qkv_same_embed_dim = False
        parts: Any = attention.in_proj_weight.detach().chunk(3)
        biases: Any = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.detach().chunk(3)
        self.query, self.key, self.value = (_linear(part, bias) for part, bias in zip(parts, biases, strict=True))
        bias = None if attention.out_proj.bias is None else attention.out_proj.bias.detach()
        self.out_proj = _linear(attention.out_proj.weight.detach(), bias)
        self.train(attention.training)

    @property
    def num_heads(self) -> int:
        """How many heads are left."""
        return int(self.num_attention_heads)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the attended values, shaped as the query, and None for the weights.

        Args:
            query, key, value: float (batch, tokens, width), or (tokens, batch, width) without `batch_first`.
            key_padding_mask: bool (batch, tokens), true where a key is not to be seen; or float, added.
            need_weights, average_attn_weights: Taken for the signature's sake; weights are not returned.
            attn_mask: bool or float (tokens, tokens) or (batch x heads, tokens, tokens).
            is_causal: A hint about `attn_mask`; the mask is what counts.
        """
        if not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        query_heads, key_heads, value_heads = (
            layer(tensor).unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for layer, tensor in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = _mask(attn_mask, key_padding_mask, heads=query_heads.shape[1], like=query)
        dropped = self.dropout if self.training else 0.0
        attended = nn.functional.scaled_dot_product_attention(
            query_heads, key_heads, value_heads, attn_mask=mask, dropout_p=dropped
        )
        outputs: torch.Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return (outputs if self.batch_first else outputs.transpose(0, 1)), None


def can_be_opened(module: nn.Module) -> bool:
    """Return whether this is multi-head attention of one width, without extra keys."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
    )


def open_attentions(module: nn.Module) -> None:
    """Replace every multi-head attention inside the module that can be opened, in place."""
    for name, child in list(module.named_modules()):
        if name and can_be_opened(child):
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, OpenAttention(child))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


def _mask(
    mask: torch.Tensor | None, padding: torch.Tensor | None, *, heads: int, like: torch.Tensor
) -> torch.Tensor | None:
    """Return both masks as one that is added to the scores, (batch or 1, heads or 1, queries or 1, keys)."""
    parts = []
    if mask is not None:
        added = _added(mask, like)
        parts.append(added if added.ndim == 2 else added.reshape(len(like), -1, *added.shape[1:])[:, :heads])
    if padding is not None:
        parts.append(_added(padding, like)[:, None, None, :])
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))

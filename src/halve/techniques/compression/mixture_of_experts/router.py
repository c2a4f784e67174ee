"""The router: which experts a token visits, how their answers are weighted, and the losses that keep it healthy.

Every function takes torch tensors and returns them; gradients flow through the weights and both losses.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

from halve.errors import InvalidParameterError

if TYPE_CHECKING:
    import torch


class Routing(NamedTuple):
    """Where tokens go.

    Args:
        weights: float32 (tokens, active), >= 0, the largest first.
        indices: int64 (tokens, active): numbers of the experts, all different within a token.
    """

    weights: "torch.Tensor"
    indices: "torch.Tensor"


def route(logits: "torch.Tensor", *, active: int, renormalise: bool = True) -> Routing:
    """Send each token to the experts with its `active` largest logits.

    p = softmax(logits); a chosen expert weighs p_i, or p_i / sum of the chosen p if renormalised. Dividing by that sum
    is the softmax over the chosen logits alone, and that is how it is computed: it cannot overflow.

    Source: Shazeer et al. 2017, arXiv:1701.06538, section 2.1.

    Args:
        logits: float32 (tokens, experts).
        active: Experts per token, 1 to the number of experts.
        renormalise: Whether the weights of a token sum to one.

    Raises:
        InvalidParameterError: If logits have not two axes, or `active` is out of range.
    """
    experts = _experts(logits)
    if not 1 <= active <= experts:
        raise InvalidParameterError("active", rule=f"1 to the number of experts ({experts})", value=active)
    chosen, indices = logits.topk(active, dim=1)
    if renormalise:
        return Routing(chosen.softmax(dim=1), indices)
    return Routing(logits.softmax(dim=1).gather(1, indices), indices)


def load_balance_loss(logits: "torch.Tensor", indices: "torch.Tensor") -> "torch.Tensor":
    """Return E * sum_i f_i P_i: 1 when experts share the tokens evenly, E when one gets all.

    f_i is the share of all assignments that went to expert i (no gradient), P_i the mean probability of expert i. The
    gradient lowers the probability of experts that are busy.

    Source: Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6; for several experts per token f_i counts them all.

    Args:
        logits: float32 (tokens, experts), at least one token.
        indices: int64 (tokens, active), from `route`.

    Raises:
        InvalidParameterError: If logits have not two axes, or there is no token.
    """
    experts = _experts(logits, least_tokens=1)
    counts = logits.new_zeros(experts).scatter_add(0, indices.flatten(), logits.new_ones(indices.numel()))
    probabilities = logits.softmax(dim=1).mean(dim=0)
    return experts * (counts / indices.numel() * probabilities).sum()


def z_loss(logits: "torch.Tensor") -> "torch.Tensor":
    """Return the mean over tokens of (log sum_i exp logit_i)^2, which keeps logits small and the softmax exact.

    Source: Zoph et al. 2022 (ST-MoE), arXiv:2202.08906, equation 5.

    Args:
        logits: float32 (tokens, experts), at least one token.

    Raises:
        InvalidParameterError: If logits have not two axes, or there is no token.
    """
    _experts(logits, least_tokens=1)
    return logits.logsumexp(dim=1).square().mean()


def capacity(tokens: int, *, experts: int, active: int, factor: float) -> int:
    """Return how many tokens one expert takes at most: ceil(factor * tokens * active / experts).

    Source: Fedus et al. 2021, arXiv:2101.03961, equation 3.

    Args:
        tokens: Of the whole batch, >= 0.
        experts, active: As in `route`.
        factor: 1 is an even share, > 0.

    Raises:
        InvalidParameterError: If the factor is not positive.
    """
    if not factor > 0:
        raise InvalidParameterError("capacity_factor", rule="positive", value=factor)
    return math.ceil(factor * tokens * active / experts)


def within_capacity(indices: "torch.Tensor", *, experts: int, limit: int) -> "torch.Tensor":
    """Return which assignments an expert has room for, bool (tokens, active).

    First choices of all tokens come before second choices, and among equals the earlier token: a token loses its
    least important expert first. What is False here is dropped, and the caller has to count it.

    Args:
        indices: int64 (tokens, active), from `route`.
        experts: How many there are.
        limit: Most tokens of one expert, >= 0.
    """
    tokens, active = indices.shape
    in_order = indices.T.reshape(-1, 1)
    taken = indices.new_zeros((tokens * active, experts)).scatter(1, in_order, 1)
    place = taken.cumsum(dim=0).gather(1, in_order)
    return (place <= limit).reshape(active, tokens).T


def _experts(logits: "torch.Tensor", *, least_tokens: int = 0) -> int:
    if logits.ndim != 2 or logits.shape[1] < 1 or (least_tokens and logits.shape[0] < least_tokens):
        rule = "of shape (tokens, experts), with at least one expert" + (" and one token" if least_tokens else "")
        raise InvalidParameterError("logits", rule=rule, value=tuple(logits.shape))
    return int(logits.shape[1])

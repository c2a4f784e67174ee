"""One dense feed-forward as a mixture of experts with the same weights, and a router fitted to calibration tokens.

With f(x) = b + sum_i v_i act(w_i x + c_i), and experts e that partition the neurons i, y_e(x) is the part of the sum
over e. Leaving an expert out costs |y_e(x)|^2; replacing it by its mean over the tokens that leave it out, mu_e, costs
less and no time: each expert carries the bias -mu_e and the layer's bias gains sum_e mu_e, so what is left out is a
constant. All experts together are still f.

The router is a multinomial logistic regression of each expert's share of the deviation, t_e = d_e / sum d, with
d_e = |y_e(x) - mean y_e|^2: it minimises the mean of -sum_e t_e log p_e(x) + l |W|^2 / 2, which is convex, by L-BFGS.
The largest logits are then the experts that are expected to matter most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.split import (
    Split,
    always_on,
    contributions,
    split_by_activations,
    split_by_weights,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from halve.techniques.compression.mixture_of_experts.find import FeedForward
    from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts

PENALTY = 1e-3
"""l, on standardised inputs."""

STEPS = 60
"""Of L-BFGS."""

ROUNDS = 6
"""Of choosing experts and constants in turn."""

HELD_OUT = 4
"""One calibration token in so many is kept from the fit, to choose the split and to report the error."""


@dataclass(frozen=True, kw_only=True)
class LayerConversion:
    """What became of one feed-forward.

    Args:
        name: Of the first layer, now of the mixture.
        neurons: Hidden neurons of the dense layer.
        shared_neurons: Of them, those that every token visits.
        experts, active: As converted.
        split: By what neurons were grouped: "activations" or "weights", whichever left less error.
        relative_error: Squared error of the mixture's answers over the variance of the dense ones, on calibration
            tokens that were not fitted, before any recovery. 0 is exact, 1 is answering the mean.
        captured_share: Of all experts' deviation, the share in the experts that the router chose, in [0, 1].
        oracle_share: The same if the best experts were known beforehand: the most a router could capture.
        dense_flops, active_flops: Of one token, router included.
    """

    name: str
    neurons: int
    shared_neurons: int
    experts: int
    active: int
    split: str
    relative_error: float
    captured_share: float
    oracle_share: float
    dense_flops: int
    active_flops: int


def fit_layer(
    first: "nn.Linear",
    second: "nn.Linear",
    place: "FeedForward",
    tokens: "torch.Tensor",
    *,
    experts: int,
    active: int,
    shared_share: float,
    seed: int,
) -> "tuple[MixtureOfExperts, LayerConversion]":
    """Return the mixture for a dense feed-forward, and what it lost.

    Args:
        first, second: Its linear layers.
        place: Where it is.
        tokens: float32 (tokens, inputs): what it read on calibration inputs, in random order.
        experts, active, shared_share, seed: As in `convert`.

    Raises:
        InvalidParameterError: If the neurons cannot be shared out among so many experts.
    """
    import torch

    from halve.techniques.compression.mixture_of_experts.layer import activate

    held_out = max(1, len(tokens) // HELD_OUT)
    fitted, unseen = (tokens[held_out:], tokens[:held_out]) if len(tokens) > 1 else (tokens, tokens)
    with torch.no_grad():
        activations = activate(first(fitted), place.activation).numpy()
    columns = second.weight.detach().numpy()
    mattering = contributions(activations, columns)
    shared = always_on(mattering, share=shared_share, experts=experts)
    splits = {
        "activations": split_by_activations(activations, experts=experts, shared=shared, seed=seed),
        "weights": split_by_weights(first.weight.detach().numpy(), experts=experts, shared=shared, seed=seed),
    }
    tried = []
    for kind, split in splits.items():
        mixture = _mixture(first, second, place, split, active=active)
        _fit_router(mixture, fitted)
        tried.append((mixture, _assess(mixture, first, second, place, unseen, kind)))
    return min(tried, key=lambda one: one[1].relative_error)


def _mixture(
    first: "nn.Linear", second: "nn.Linear", place: "FeedForward", split: Split, *, active: int
) -> "MixtureOfExperts":
    """Return the mixture that holds the weights of a dense layer; its router is not fitted yet."""
    import torch

    from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts

    config = MixtureConfig(
        inputs=place.inputs,
        outputs=place.outputs,
        experts=len(split.experts),
        active=active,
        neurons=split.experts.shape[1],
        shared_neurons=len(split.shared),
        activation=place.activation,
    )
    mixture = MixtureOfExperts(config)
    members, shared = torch.from_numpy(split.experts), torch.from_numpy(split.shared)
    with torch.no_grad():
        first_bias = torch.zeros(place.neurons) if first.bias is None else first.bias
        mixture.first_weight.copy_(first.weight[members])
        mixture.first_bias.copy_(first_bias[members])
        mixture.second_weight.copy_(second.weight[:, members].permute(1, 0, 2))
        mixture.second_bias.zero_()
        if second.bias is not None:
            mixture.bias.copy_(second.bias)
        if mixture.shared_first is not None and mixture.shared_second is not None:
            mixture.shared_first.weight.copy_(first.weight[shared])
            mixture.shared_first.bias.copy_(first_bias[shared])
            mixture.shared_second.weight.copy_(second.weight[:, shared])
    return mixture


def answers(mixture: "MixtureOfExperts", tokens: "torch.Tensor") -> "list[torch.Tensor]":
    """Return what each expert adds for each token without its bias, a list of float32 (tokens, outputs)."""
    import torch

    from halve.techniques.compression.mixture_of_experts.layer import activate

    found = []
    with torch.no_grad():
        for expert in range(mixture.config.experts):
            hidden = tokens @ mixture.first_weight[expert].T + mixture.first_bias[expert]
            found.append(activate(hidden, mixture.config.activation) @ mixture.second_weight[expert].T)
    return found


def _fit_router(mixture: "MixtureOfExperts", tokens: "torch.Tensor") -> None:
    """Fit the router, then move the means of what it leaves out into the biases."""
    import torch

    parts = answers(mixture, tokens)
    targets = _deviations(parts, mixture.config.active)
    targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=1e-20)
    weight, bias = _logistic(tokens, targets)
    with torch.no_grad():
        mixture.router.weight.copy_(weight)
        mixture.router.bias.copy_(bias)
        chosen = _chosen(mixture.router(tokens), mixture.config.active)
        for expert, part in enumerate(parts):
            left_out = part[~chosen[:, expert]]
            if len(left_out):
                mixture.second_bias[expert] = -left_out.mean(dim=0)
                mixture.bias.add_(left_out.mean(dim=0))


def _logistic(tokens: "torch.Tensor", targets: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Return weight (experts, inputs) and bias of the softmax regression of shares on tokens."""
    import torch

    mean, deviation = tokens.mean(dim=0), tokens.std(dim=0, unbiased=False).clamp(min=1e-6)
    inputs = ((tokens - mean) / deviation).double()
    goals = targets.double()
    with torch.enable_grad():
        weight = torch.zeros(targets.shape[1], tokens.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Any:
            optimizer.zero_grad()
            cross_entropy = -(goals * (inputs @ weight.T + bias).log_softmax(dim=1)).sum(dim=1).mean()
            value = cross_entropy + PENALTY / 2 * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
    scaled = (weight.detach() / deviation).float()
    return scaled, bias.detach().float() - scaled @ mean


def _assess(
    mixture: "MixtureOfExperts",
    first: "nn.Linear",
    second: "nn.Linear",
    place: "FeedForward",
    tokens: "torch.Tensor",
    kind: str,
) -> LayerConversion:
    import torch

    from halve.techniques.compression.mixture_of_experts.layer import activate

    config = mixture.config
    with torch.no_grad():
        dense = second(activate(first(tokens), place.activation))
        error = (mixture.eval()(tokens) - dense).square().sum()
        variance = (dense - dense.mean(dim=0)).square().sum().clamp(min=1e-20)
        deviations = _squares(answers(mixture, tokens), list(-mixture.second_bias))
        whole = deviations.sum().clamp(min=1e-20)
        captured = (deviations * _chosen(mixture.router(tokens), config.active)).sum() / whole
        oracle = deviations.topk(config.active, dim=1).values.sum() / whole
    mixture.last_routing = None
    return LayerConversion(
        name=place.name,
        neurons=place.neurons,
        shared_neurons=config.shared_neurons,
        experts=config.experts,
        active=config.active,
        split=kind,
        relative_error=float(error / variance),
        captured_share=float(captured),
        oracle_share=float(oracle),
        dense_flops=config.dense_flops,
        active_flops=config.active_flops,
    )


def _deviations(parts: "list[torch.Tensor]", active: int) -> "torch.Tensor":
    """Return |y_e - mu_e|^2, (tokens, experts), for the constants that suit tokens who keep their best experts."""
    import torch

    constants = [torch.zeros_like(part[0]) for part in parts]
    for _ in range(ROUNDS):
        kept = _chosen(_squares(parts, constants), active)
        constants = [
            part[~kept[:, expert]].mean(dim=0) if not kept[:, expert].all() else constants[expert]
            for expert, part in enumerate(parts)
        ]
    return _squares(parts, constants)


def _squares(parts: "list[torch.Tensor]", constants: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """Return |y_e - constant_e|^2, (tokens, experts)."""
    import torch

    pairs = zip(parts, constants, strict=True)
    return torch.stack([(part - constant).square().sum(dim=1) for part, constant in pairs], dim=1)


def _chosen(logits: "torch.Tensor", active: int) -> "torch.Tensor":
    """Return which experts have the largest logits, bool (tokens, experts)."""
    import torch

    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, logits.topk(active, dim=1).indices, True)


def shuffled(tokens: "torch.Tensor", *, most: int, seed: int) -> "torch.Tensor":
    """Return at most so many tokens, in random order."""
    import torch

    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(tokens))[:most]
    return tokens[torch.from_numpy(order)]

"""A trained dense module as a mixture of experts: every feed-forward is split, and a router is fitted to it.

Nothing is trained here: what the conversion loses, distillation from the dense parent brings back, with
`auxiliary_losses` added to its loss so that no expert is left alone.

Source: Zhang et al. 2022 (MoEfication), arXiv:2110.01786; Szatkowski et al. 2024 (D2DMoE), arXiv:2310.04361, section
3.2: the router predicts how much an expert adds, not which neurons fire, so GELU layers can be converted too.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.mixture_of_experts.find import (
    FeedForward,
    feed_forwards,
    mixtures,
    put,
    require_torch,
)
from halve.techniques.compression.mixture_of_experts.fit import LayerConversion, fit_layer, shuffled

if TYPE_CHECKING:
    import torch
    from torch import nn

Inputs = Mapping[str, NDArray[Any]]
"""Named input tensors, batch axis first, in the order that `forward` takes them."""

MASK = "attention_mask"
"""An input of this name, (batch, tokens), is 0 where a token is padding: those calibrate nothing."""

MOST_TOKENS = 8192
"""Of each layer, drawn from all that the calibration inputs have."""

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A module whose feed-forwards are mixtures of experts.

    Args:
        module: A copy in evaluation mode; same inputs, same kind of output.
        layers: What became of each feed-forward, in the order of the module.
    """

    module: "nn.Module"
    layers: tuple[LayerConversion, ...]


def convert(
    module: "nn.Module",
    inputs: Inputs,
    *,
    experts: int = 8,
    active: int = 4,
    shared_neurons_share: float = 0.0,
    layers: Collection[str] | None = None,
    seed: int = 0,
    progress: Callable[[str, int], None] | None = None,
) -> Converted:
    """Return a copy of a trained module with its dense feed-forwards as mixtures of experts of the same weights.

    Both ways to group neurons are tried for every layer (see `split`); the one with less error on unseen tokens stays.
    With `active == experts` the copy computes what the module does, to rounding.

    Args:
        module: Trained, in evaluation mode, on the CPU.
        inputs: Real inputs, a few hundred rows. Tokens where an input named `attention_mask` is 0 are left out.
        experts: Per feed-forward, >= 1.
        active: Experts that a token visits, 1 to `experts`.
        shared_neurons_share: Of the neurons, those that every token visits, in [0, 1).
        layers: Names out of `feed_forwards`; all by default.
        seed: Of clustering and of the choice of tokens.
        progress: Called after each layer with its name and how many are left.

    Raises:
        InvalidParameterError: If the module is in training mode, there is no input, a name is unknown, or a number is
            outside its range or does not fit the neurons.
        ModelError: If there is no dense feed-forward, one is not reached by the inputs, or it reads NaN or infinity.
        MissingExtraError: If torch is not installed.
    """
    require_torch()
    if module.training:
        raise InvalidParameterError("module", rule="in evaluation mode", value="training", hint="Call module.eval().")
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    if not 1 <= active <= experts:
        raise InvalidParameterError("active", rule=f"1 to experts ({experts})", value=active)
    places = _chosen_places(module, layers)
    read = _what_they_read(module, places, inputs, seed=seed)
    copied = copy.deepcopy(module)
    rows = []
    for number, place in enumerate(places):
        linears: tuple[Any, Any] = (module.get_submodule(place.name), module.get_submodule(place.second))
        mixture, row = fit_layer(
            *linears,
            place,
            read.pop(place.name),
            experts=experts,
            active=active,
            shared_share=shared_neurons_share,
            seed=seed,
        )
        put(copied, place, mixture)
        rows.append(row)
        if progress is not None:
            progress(place.name, len(places) - number - 1)
    return Converted(module=copied.eval(), layers=tuple(rows))


def auxiliary_losses(module: "nn.Module", *, load_balance: float = 0.01, z: float = 0.001) -> "torch.Tensor":
    """Return load_balance * sum L_balance + z * sum L_z over the mixtures, of the last forward pass; a scalar.

    Args:
        module: With mixtures that have run since they were made or copied.
        load_balance, z: Weights, >= 0. Defaults: Fedus et al. 2021 and Zoph et al. 2022.

    Raises:
        InvalidParameterError: If a weight is negative.
        ModelError: If there is no mixture, or one has not run.
    """
    from halve.techniques.compression.mixture_of_experts.router import load_balance_loss, z_loss

    for name, weight in (("load_balance", load_balance), ("z", z)):
        if not weight >= 0:
            raise InvalidParameterError(name, rule="at least 0", value=weight)
    losses = []
    for name, mixture in mixtures(module).items():
        last = mixture.last_routing
        if last is None or not len(last.logits):
            raise ModelError(f"mixture {name!r} must have routed a batch before its losses are asked for. Got none.")
        losses.append(load_balance * load_balance_loss(last.logits, last.indices) + z * z_loss(last.logits))
    if not losses:
        raise ModelError(f"{type(module).__name__} must hold a mixture of experts. Got none.")
    total: torch.Tensor = sum(losses[1:], losses[0])
    return total


def _chosen_places(module: "nn.Module", layers: Collection[str] | None) -> list[FeedForward]:
    places = {place.name: place for place in feed_forwards(module)}
    if not places:
        raise ModelError(f"{type(module).__name__} must hold a dense feed-forward to convert. Got none.")
    if layers is None:
        return list(places.values())
    if unknown := sorted(set(layers) - set(places)):
        raise InvalidParameterError("layers", rule=f"names out of {list(places)}", value=unknown)
    return [place for name, place in places.items() if name in layers]


def _what_they_read(
    module: "nn.Module", places: list[FeedForward], inputs: Inputs, *, seed: int
) -> "dict[str, torch.Tensor]":
    """Return the tokens that each feed-forward reads, float32 (tokens, inputs), shuffled."""
    import torch

    found: dict[str, list[torch.Tensor]] = {place.name: [] for place in places}
    rows = min(len(array) for array in inputs.values())
    for start in range(0, rows, _BATCH):
        batch = {k: torch.from_numpy(v[start : min(rows, start + _BATCH)].copy()) for k, v in inputs.items()}
        with _watched(module, places, found, batch.get(MASK)), torch.no_grad():
            module(*batch.values())
    tokens = {}
    for name, parts in found.items():
        if not parts or not sum(map(len, parts)):
            raise ModelError(f"feed-forward {name!r} must read at least one calibration token. Got none.")
        tokens[name] = shuffled(torch.cat(parts), most=MOST_TOKENS, seed=seed)
        if not tokens[name].isfinite().all():
            raise ModelError(f"what feed-forward {name!r} reads must be finite. Got NaN or infinity.")
    return tokens


@contextmanager
def _watched(
    module: "nn.Module",
    places: list[FeedForward],
    found: "dict[str, list[torch.Tensor]]",
    mask: "torch.Tensor | None",
) -> Iterator[None]:
    import torch

    def watch(name: str, _: "nn.Module", arguments: tuple[Any, ...]) -> None:
        tokens = arguments[0].detach()
        keeps = mask is not None and mask.shape == tokens.shape[:-1]
        found[name].append(tokens[mask != 0] if keeps else tokens.reshape(-1, tokens.shape[-1]))

    fast = torch.backends.mha.get_fastpath_enabled()
    # torch's fused encoder kernel does not call the layers.
    torch.backends.mha.set_fastpath_enabled(False)
    hooks = [module.get_submodule(p.name).register_forward_pre_hook(partial(watch, p.name)) for p in places]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()

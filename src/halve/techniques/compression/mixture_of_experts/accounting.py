"""What a mixture saves and what it does not: compute, but no memory.

A token goes through k of E experts, so the compute is that of the active parameters. Which experts the next token needs
is not known before, so all of them stay in memory: 8 of 256 equal experts are 3.1 % of the expert compute and 100 % of
the expert memory. Whether fewer operations are also less time is for a clock to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.mixture_of_experts.find import mixtures

if TYPE_CHECKING:
    from torch import nn

    from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """Both accounts of a module with mixtures of experts, on given inputs.

    FLOPs are multiplications and additions of the feed-forwards' products (2 per weight and token); biases, activations
    and everything outside the mixtures are not counted. Routers are.

    Args:
        total_parameters: Of the whole module: what has to be stored.
        active_parameters: Of them, what one token goes through: all but the experts that it does not visit.
        expert_parameters: Of the experts behind the routers, shared ones not counted.
        active_expert_parameters: Of the experts that one token visits.
        memory_bytes: Of all parameters and buffers as they lie in memory.
        dense_memory_bytes: The same with dense layers instead: no routers and no biases of experts.
        dense_flops: If every token went through all neurons.
        active_flops: What was computed, routers included.
        router_flops: Of them, the routers'.
        tokens: That passed a mixture, summed over mixtures.
        dropped: Assignments for which an expert had no room.
    """

    total_parameters: int
    active_parameters: int
    expert_parameters: int
    active_expert_parameters: int
    memory_bytes: int
    dense_memory_bytes: int
    dense_flops: int
    active_flops: int
    router_flops: int
    tokens: int
    dropped: int

    @property
    def active_flops_ratio(self) -> float:
        """Feed-forward operations over those of the dense layers, router included."""
        return self.active_flops / self.dense_flops

    @property
    def active_experts_ratio(self) -> float:
        """Active expert parameters over all expert parameters: what a token computes of the experts."""
        return self.active_expert_parameters / self.expert_parameters

    @property
    def memory_ratio(self) -> float:
        """Bytes over those of the dense module: 1 or a little more, never less."""
        return self.memory_bytes / self.dense_memory_bytes


def account(module: "nn.Module", inputs: Mapping[str, NDArray[Any]]) -> Accounting:
    """Run a module and return what its mixtures computed and what they hold.

    Args:
        module: In evaluation mode, with at least one mixture.
        inputs: Named arrays, batch axis first, in the order that `forward` takes them; at least one row.

    Raises:
        InvalidParameterError: If there is no input, or the module is in training mode.
        ModelError: If there is no mixture.
        MissingExtraError: If torch is not installed.
    """
    layers = mixtures(module)
    if not layers:
        raise ModelError(f"{type(module).__name__} must hold a mixture of experts. Got none.")
    if module.training:
        raise InvalidParameterError("module", rule="in evaluation mode", value="training", hint="Call module.eval().")
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    counts = {"dense_flops": 0, "active_flops": 0, "router_flops": 0, "tokens": 0, "dropped": 0}
    hooks = [layer.register_forward_hook(partial(_count, counts)) for layer in layers.values()]
    try:
        _run(module, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    configs = [layer.config for layer in layers.values()]
    total = sum(parameter.numel() for parameter in module.parameters())
    experts = sum(config.experts * config.expert_parameters for config in configs)
    visited = sum(config.active * config.expert_parameters for config in configs)
    memory = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    return Accounting(
        total_parameters=total,
        active_parameters=total - experts + visited,
        expert_parameters=experts,
        active_expert_parameters=visited,
        memory_bytes=memory,
        dense_memory_bytes=memory - sum(map(_added_bytes, layers.values())),
        **counts,
    )


def _run(module: "nn.Module", inputs: Mapping[str, NDArray[Any]]) -> None:
    import torch

    rows = min(len(array) for array in inputs.values())
    with torch.inference_mode():
        for start in range(0, rows, _BATCH):
            end = min(rows, start + _BATCH)
            module(*(torch.from_numpy(array[start:end].copy()) for array in inputs.values()))


def _count(counts: dict[str, int], layer: "MixtureOfExperts", _: object, __: object) -> None:
    last, config = layer.last_routing, layer.config
    if last is None:
        return
    routers = last.tokens * config.router_flops
    counts["tokens"] += last.tokens
    counts["dropped"] += last.dropped
    counts["router_flops"] += routers
    counts["dense_flops"] += last.tokens * config.dense_flops
    visits = int(last.visits.sum())
    counts["active_flops"] += visits * config.expert_flops + last.tokens * config.shared_flops + routers


def _added_bytes(layer: "MixtureOfExperts") -> int:
    """Return the bytes of what a dense layer does not have."""
    return sum(int(tensor.nbytes) for tensor in (layer.router.weight, layer.router.bias, layer.second_bias))

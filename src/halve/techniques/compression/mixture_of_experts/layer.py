"""A sparse feed-forward: every token visits a few experts, and experts that it does not visit cost it nothing.

    y(x) = b + S(x) + sum over the chosen experts e of g_e(x) (V_e act(W_e x + c_e) + b_e)

S is the shared expert. Tokens are grouped by expert: the rows that chose it are gathered, go through its two products
together, and are added where they came from. An expert without tokens is skipped. The same lines go through
`torch.onnx.export(dynamo=True)`: there the groups are NonZero, Gather, Gemm and ScatterND with lengths that follow from
the data, so a runtime multiplies what was routed and nothing else.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - a module is a class; this file is only imported inside functions.
from torch import nn  # noqa: TID253

from halve.errors import InvalidParameterError
from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.router import capacity, route, within_capacity


@dataclass(frozen=True, kw_only=True, eq=False)
class LastRouting:
    """What a layer did with the last batch.

    Args:
        logits: float32 (routed tokens, experts), with gradient while training.
        indices: int64 (routed tokens, active).
        tokens: All of the batch; masked ones are not routed.
        visits: int64 (experts,): tokens that each expert computed.
        dropped: Assignments for which an expert had no room, >= 0.
    """

    logits: torch.Tensor
    indices: torch.Tensor
    tokens: int
    visits: torch.Tensor
    dropped: int


class MixtureOfExperts(nn.Module):
    """A feed-forward of experts behind a top-k router.

    Fresh weights are drawn as `nn.Linear` draws them. `last_routing` tells of the last batch, None before it and while
    a graph is traced.

    Args:
        config: The sizes.
    """

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        self.config = config
        experts, neurons = config.experts, config.neurons
        self.router = nn.Linear(config.inputs, experts)
        self.first_weight = _uniform(experts, neurons, config.inputs, fan_in=config.inputs)
        self.first_bias = _uniform(experts, neurons, fan_in=config.inputs)
        self.second_weight = _uniform(experts, config.outputs, neurons, fan_in=neurons)
        self.second_bias = _uniform(experts, config.outputs, fan_in=neurons)
        self.bias = nn.Parameter(torch.zeros(config.outputs))
        self.shared_first: nn.Linear | None = None
        self.shared_second: nn.Linear | None = None
        if config.shared_neurons:
            self.shared_first = nn.Linear(config.inputs, config.shared_neurons)
            self.shared_second = nn.Linear(config.shared_neurons, config.outputs, bias=False)
        self.last_routing: LastRouting | None = None

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return float32 (..., outputs) for float32 (..., inputs).

        Args:
            inputs: Tokens along all axes but the last.
            mask: bool, the shape of `inputs` without its last axis: False for tokens that are padding. They visit no
                expert and get the bias and the shared expert's answer only.

        Raises:
            InvalidParameterError: If the last axis has another length.
        """
        if inputs.shape[-1] != self.config.inputs:
            raise InvalidParameterError(
                "inputs", rule=f"of {self.config.inputs} features in the last axis", value=tuple(inputs.shape)
            )
        tokens = inputs.reshape(-1, self.config.inputs)
        logits = self.router(tokens)
        weights, indices = route(logits, active=self.config.active)
        kept = None if mask is None else mask.reshape(-1, 1).expand_as(indices)
        if self.config.capacity_factor is not None:
            room = self._room(indices, factor=self.config.capacity_factor)
            kept = room if kept is None else kept & room
        visited = self._visited(logits, indices, kept)
        outputs = self._experts(tokens, visited, self._gates(logits, weights, indices))
        if not torch.compiler.is_compiling():
            self._remember(logits, indices, visited, None if mask is None else mask.reshape(-1))
        return outputs.reshape(*inputs.shape[:-1], self.config.outputs)

    def _room(self, indices: torch.Tensor, *, factor: float) -> torch.Tensor:
        experts = self.config.experts
        limit = capacity(indices.shape[0], experts=experts, active=self.config.active, factor=factor)
        return within_capacity(indices, experts=experts, limit=limit)

    @staticmethod
    def _visited(logits: torch.Tensor, indices: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """Return 1 where a token visits an expert, else 0, float32 (tokens, experts)."""
        visits = torch.ones_like(indices, dtype=logits.dtype) if kept is None else kept.to(logits.dtype)
        return torch.zeros_like(logits).scatter(1, indices, visits)

    def _gates(self, logits: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor | None:
        """Return the factor of every expert's answer, (tokens, experts); None where it is 1 for all."""
        if self.config.gating == "softmax":
            return torch.zeros_like(logits).scatter(1, indices, weights)
        if not torch.is_grad_enabled() or not logits.requires_grad:
            return None
        # Straight-through: the value is 1, the gradient is that of the probability, so the router learns.
        probabilities = logits.softmax(dim=1)
        return 1 + probabilities - probabilities.detach()

    def _experts(self, tokens: torch.Tensor, visited: torch.Tensor, gates: torch.Tensor | None) -> torch.Tensor:
        outputs = self._shared(tokens)
        # Unbound once: indexing a stacked weight would write a gradient of the whole stack for every expert.
        parts = (self.first_weight, self.first_bias, self.second_weight, self.second_bias)
        tracing = torch.compiler.is_compiling()
        for number, (first, first_bias, second, second_bias) in enumerate(zip(*map(torch.unbind, parts), strict=True)):
            rows = visited[:, number].nonzero().flatten()
            if not tracing and not len(rows):
                continue
            hidden = self._activate(nn.functional.linear(tokens.index_select(0, rows), first, first_bias))
            answers = nn.functional.linear(hidden, second, second_bias)
            if gates is not None:
                answers = answers * gates[:, number].index_select(0, rows).unsqueeze(1)
            outputs = outputs.index_add(0, rows, answers)
        return outputs

    def _shared(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.shared_first is None or self.shared_second is None:
            return self.bias.expand(tokens.shape[0], -1)
        hidden = self._activate(self.shared_first(tokens))
        return nn.functional.linear(hidden, self.shared_second.weight, self.bias)

    def _activate(self, tensor: torch.Tensor) -> torch.Tensor:
        return activate(tensor, self.config.activation)

    def _remember(
        self, logits: torch.Tensor, indices: torch.Tensor, visited: torch.Tensor, mask: torch.Tensor | None
    ) -> None:
        visits = visited.detach().sum(dim=0).long()
        routed = slice(None) if mask is None else mask
        assignments = indices[routed].numel()
        self.last_routing = LastRouting(
            logits=logits[routed],
            indices=indices[routed],
            tokens=len(logits),
            visits=visits,
            dropped=assignments - int(visits.sum()),
        )

    def __getstate__(self) -> Mapping[str, Any]:
        # Copies do not take along what belongs to a batch: tensors with a gradient cannot be copied.
        return {**self.__dict__, "last_routing": None}


def activate(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Return the activation of that name (see `MixtureConfig`) of a tensor."""
    if name == "gelu_tanh":
        return nn.functional.gelu(tensor, approximate="tanh")
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "relu": nn.functional.relu,
        "gelu": nn.functional.gelu,
        "silu": nn.functional.silu,
    }
    return functions[name](tensor)


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

"""The sizes of one mixture of experts, and what follows from them: parameters and operations."""

from dataclasses import dataclass
from typing import Literal

from halve.errors import InvalidParameterError

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Gating = Literal["softmax", "whole"]


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """One sparse feed-forward: `experts` small ones of which a token visits `active`, and a shared one for all tokens.

    Args:
        inputs, outputs: Features of a token before and after, >= 1.
        experts: How many there are, >= 1.
        active: How many a token visits, 1 to `experts`.
        neurons: Hidden neurons of each expert, >= 1.
        shared_neurons: Hidden neurons that every token visits, >= 0.
        activation: Between the two products.
        gating: How the answers of the chosen experts are added: "softmax" weights each by its renormalised router
            probability, for a mixture that is trained as one; "whole" counts each in full, so that all experts
            together are the dense layer that they were cut from.
        capacity_factor: An expert takes at most ceil(factor * tokens * active / experts) tokens, > 0; None for no
            limit.
    """

    inputs: int
    outputs: int
    experts: int
    active: int
    neurons: int
    shared_neurons: int = 0
    activation: Activation = "gelu"
    gating: Gating = "whole"
    capacity_factor: float | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "experts", "neurons"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(name, rule="at least 1", value=getattr(self, name))
        if not 1 <= self.active <= self.experts:
            raise InvalidParameterError("active", rule=f"1 to experts ({self.experts})", value=self.active)
        if self.shared_neurons < 0:
            raise InvalidParameterError("shared_neurons", rule="at least 0", value=self.shared_neurons)
        if self.activation not in ("relu", "gelu", "gelu_tanh", "silu"):
            raise InvalidParameterError("activation", rule="relu, gelu, gelu_tanh or silu", value=self.activation)
        if self.gating not in ("softmax", "whole"):
            raise InvalidParameterError("gating", rule="softmax or whole", value=self.gating)
        if self.capacity_factor is not None and not self.capacity_factor > 0:
            raise InvalidParameterError("capacity_factor", rule="positive, or none", value=self.capacity_factor)

    @property
    def expert_parameters(self) -> int:
        """Weights and biases of one expert: m d + m + d' m + d'."""
        return self.neurons * (self.inputs + self.outputs + 1) + self.outputs

    @property
    def expert_flops(self) -> int:
        """Multiplications and additions of one token in one expert: 2 m (d + d'). Biases and activation not counted."""
        return 2 * self.neurons * (self.inputs + self.outputs)

    @property
    def shared_flops(self) -> int:
        """Multiplications and additions of one token in the shared expert."""
        return 2 * self.shared_neurons * (self.inputs + self.outputs)

    @property
    def router_flops(self) -> int:
        """Multiplications and additions of one token in the router: 2 d E."""
        return 2 * self.inputs * self.experts

    @property
    def dense_flops(self) -> int:
        """Operations of one token in the dense layer of as many neurons."""
        return self.experts * self.expert_flops + self.shared_flops

    @property
    def active_flops(self) -> int:
        """Operations of one token here: its experts, the shared one and the router."""
        return self.active * self.expert_flops + self.shared_flops + self.router_flops

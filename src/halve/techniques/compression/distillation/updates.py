"""One update of a student's weights: the optimizers, the shortened gradient, and the moving average."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from halve.techniques.compression.distillation.recipe import Recipe, learning_rate_share

if TYPE_CHECKING:
    import torch
    from torch import nn

AVERAGED_EVERY = 8
"""Updates between two steps of the moving average, which then takes that many decays at once: an average over all
weights at every update can cost as much as the update."""


class Optimizers:
    """AdamW or SGD for most parameters, and Adam on the touched rows alone for tables with sparse gradients.

    Args:
        modules: What is trained, by a prefix of its parameters' names.
        recipe: How.
        total: Number of updates.
    """

    def __init__(self, modules: "Mapping[str, nn.Module]", *, recipe: Recipe, total: int) -> None:
        self._recipe, self._total = recipe, total
        sparse, dense = _split(modules)
        self._dense = [parameter for _, parameter in dense]
        self.optimizers: list[torch.optim.Optimizer] = []
        if dense:
            self.optimizers.append(_dense_optimizer(dense, recipe))
        if sparse:
            self.optimizers.append(_sparse_optimizer(sparse, recipe))

    def step(self, update: int) -> None:
        """Move the weights against their gradients and forget those.

        Args:
            update: From 0; sets the learning rate.
        """
        import torch

        recipe = self._recipe
        share = learning_rate_share(update, self._total, warm_up_share=recipe.warm_up_share)
        if recipe.gradient_norm < float("inf"):
            torch.nn.utils.clip_grad_norm_(self._dense, recipe.gradient_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * recipe.learning_rate * group["factor"]
            optimizer.step()
            optimizer.zero_grad()

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return the state of all optimizers, by name."""
        import torch

        found: dict[str, torch.Tensor] = {}
        for name, values, _ in self._slots():
            found |= {f"{name}.{key}": torch.as_tensor(value) for key, value in values.items() if value is not None}
        return found

    def load(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take back what `tensors` gave."""
        for name, _, (optimizer, parameter) in self._slots():
            start = f"{name}."
            values = {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}
            if values:
                is_sparse = _counts_in_integers(optimizer)
                state = {key: int(value) if is_sparse and key == "step" else value for key, value in values.items()}
                optimizer.state[parameter] = state

    def _slots(self) -> Iterator[tuple[str, dict[str, Any], tuple[Any, Any]]]:
        for number, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for position, parameter in enumerate(parameters):
                yield f"{number}.{position}", optimizer.state.get(parameter, {}), (optimizer, parameter)


class Average:
    """A moving average of a module's weights and running statistics.

    The decay grows towards its value, min(decay, (1 + u) / (10 + u)) at update u, so that the start is soon forgotten.

    Args:
        module: Whose.
        decay: Per update, in (0, 1); None: the average is the module itself.
    """

    def __init__(self, module: "nn.Module", decay: float | None) -> None:
        self._module, self._decay = module, decay
        self.values: dict[str, torch.Tensor] = {}
        if decay is not None:
            self.values = {name: tensor.detach().clone() for name, tensor in self._floats()}

    def step(self, update: int) -> None:
        """Take in the weights after an update, from 0."""
        if self._decay is None or (update + 1) % AVERAGED_EVERY:
            return
        import torch

        decay = min(self._decay, (1 + update) / (10 + update)) ** AVERAGED_EVERY
        with torch.no_grad():
            for name, tensor in self._floats():
                self.values[name].lerp_(tensor, 1 - decay)

    def state(self) -> "dict[str, torch.Tensor]":
        """Return a copy of the module's state with the averages in place."""
        return {name: self.values.get(name, tensor).detach().clone() for name, tensor in state_of(self._module).items()}

    def _floats(self) -> "list[tuple[str, torch.Tensor]]":
        return [(name, tensor) for name, tensor in state_of(self._module).items() if tensor.is_floating_point()]


def state_of(module: "nn.Module") -> "dict[str, torch.Tensor]":
    """Return the module's weights and statistics, each storage once."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def load_state(module: "nn.Module", state: "Mapping[str, torch.Tensor]") -> None:
    """Copy a state into the module, in place; what shares its storage follows."""
    import torch

    with torch.no_grad():
        own = module.state_dict()
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _split(modules: "Mapping[str, nn.Module]") -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return the trainable parameters with sparse gradients, and the others."""
    tables = {
        id(part.weight) for module in modules.values() for part in module.modules() if getattr(part, "sparse", False)
    }
    named = [
        (prefix + name, parameter)
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
    sparse = [(name, parameter) for name, parameter in named if id(parameter) in tables]
    return sparse, [(name, parameter) for name, parameter in named if id(parameter) not in tables]


def _factor(name: str, recipe: Recipe) -> float:
    fitting = [(len(start), factor) for start, factor in recipe.rate_factors if name.startswith(start)]
    return max(fitting)[1] if fitting else 1.0


def _dense_optimizer(named: list[tuple[str, Any]], recipe: Recipe) -> "torch.optim.Optimizer":
    import torch

    groups = [
        {
            "params": [parameter],
            "weight_decay": recipe.weight_decay if parameter.ndim > 1 else 0.0,
            "factor": _factor(name, recipe),
        }
        for name, parameter in named
    ]
    merged = _merged(groups)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(merged, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(merged, lr=recipe.learning_rate)


def _sparse_optimizer(named: list[tuple[str, Any]], recipe: Recipe) -> "torch.optim.Optimizer":
    import torch

    groups = [{"params": [parameter], "factor": _factor(name, recipe)} for name, parameter in named]
    return torch.optim.SparseAdam(groups, lr=recipe.learning_rate)


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put parameters of the same settings into one group: fewer, larger operations."""
    merged: dict[tuple[float, float], dict[str, Any]] = {}
    for group in groups:
        key = (group["weight_decay"], group["factor"])
        merged.setdefault(key, {**group, "params": []})["params"] += group["params"]
    return list(merged.values())


def _counts_in_integers(optimizer: Any) -> bool:
    import torch

    return isinstance(optimizer, torch.optim.SparseAdam)

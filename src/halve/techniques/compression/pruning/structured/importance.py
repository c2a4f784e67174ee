"""How much each unit of a group matters: by its weights, by its gradient, or by what flows through it.

A unit is gone when its readers (the layers that take it in) no longer see it, whatever the layers before it hold. So
gradients and activations are taken at the readers. With w the readers' weights on the unit, over the n examples:

    magnitude     sqrt(sum of w^2 over all members), so that writers count too
    taylor        |sum_i sum w dL_i/dw| / n with a loss, or without one 1/2 mean (sum w d log p(y|x)/dw)^2
    activation    mean |x| over examples and places

The second form of `taylor` needs no labels: y is drawn from the module's own answer, the mean of squared gradients is
then the Fisher information, and half its quadratic form is how far the answer's distribution moves (the KL divergence
from the module's own answer), to second order. It is the first step of distillation from itself: the gradient of the
divergence itself is zero there. Both forms are in units of the loss, so groups compare as they are. The other two
have the unit of their layer and are divided by the mean of the group.

Sources: Li et al. 2017, arXiv:1608.08710 (magnitude); Molchanov et al. 2019, arXiv:1906.10771 (Taylor); Liu et al.
2021, arXiv:2108.00708 (Fisher information over coupled channels).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.groups import Group, Inputs, Member, opened, tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

Importance = Literal["magnitude", "taylor", "activation"]
IMPORTANCES: tuple[Importance, ...] = ("magnitude", "taylor", "activation")

Scores = dict[str, NDArray[np.float64]]
"""By group name, one number >= 0 per unit."""

BATCH = 8
"""Rows per gradient. Fewer estimate the Fisher information from more squares; more are quicker."""


def unit_scores(
    module: "nn.Module",
    groups: Sequence[Group],
    inputs: Inputs,
    *,
    importance: Importance = "taylor",
    loss: Any = None,
    batch_rows: int = BATCH,
    seed: int = 0,
) -> Scores:
    """Return how much each unit of each group matters, float64 (units,), higher is more.

    Args:
        module: The module that the groups are of.
        groups: From `prunable_groups`.
        inputs: Real inputs, at least one row; `magnitude` does not look at them.
        importance: Which measure.
        loss: For `taylor`: called with the answer to some rows, (rows, ...), and the slice of the inputs they are;
            returns the sum of their losses. None draws labels from the module's own logits, (rows, classes).
        batch_rows: Rows per gradient, >= 1.
        seed: Of the labels that are drawn.

    Raises:
        InvalidParameterError: If the importance is unknown, or there is no row.
        ModelError: If the module fails, or its answer is no table of logits and there is no loss.
        MissingExtraError: If torch is not installed.
    """
    if importance not in IMPORTANCES:
        raise InvalidParameterError("importance", rule=f"one of {', '.join(IMPORTANCES)}", value=importance)
    if batch_rows < 1:
        raise InvalidParameterError("batch_rows", rule="at least 1", value=batch_rows)
    if not inputs or min(len(array) for array in inputs.values()) == 0:
        raise InvalidParameterError("inputs", rule="at least one row", value={k: v.shape for k, v in inputs.items()})
    model = opened(module).eval().requires_grad_(True)
    if importance == "magnitude":
        return {group.name: _relative(_magnitudes(model, group)) for group in groups}
    if importance == "activation":
        means = _activations(model, groups, inputs, batch_rows=batch_rows)
        return {group.name: _relative(means[group.name]) for group in groups}
    return _taylor(model, groups, inputs, loss=loss, batch_rows=batch_rows, seed=seed)


def _relative(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = scores.mean()
    return scores / mean if mean > 0 else scores


def _magnitudes(model: "nn.Module", group: Group) -> NDArray[np.float64]:
    squares = np.zeros(group.units)
    for member in group.members:
        layer: Any = model.get_submodule(member.layer)
        weight = getattr(layer, "weight", None)
        if weight is not None:
            squares += _by_unit(weight.detach().double().square(), layer, member)
    return np.sqrt(squares)


def _by_unit(values: "torch.Tensor", layer: "nn.Module", member: Member) -> NDArray[np.float64]:
    """Return the sum of the values that belong to each unit, float64 (units,)."""
    from torch import nn

    along = 0 if member.axis == "out" else min(1, values.ndim - 1)
    if isinstance(layer, nn.Embedding):
        along = 1
    if getattr(layer, "groups", 1) > 1:
        along = 0  # A depthwise filter belongs to the channel that it reads and makes.
    sums = values.transpose(0, along).flatten(1).sum(1) if values.ndim > 1 else values
    flat = sums.detach().cpu().numpy().astype(np.float64)
    return np.array([flat[list(positions)].sum() for positions in member.positions])


def _taylor(
    model: "nn.Module", groups: Sequence[Group], inputs: Inputs, *, loss: Any, batch_rows: int, seed: int
) -> Scores:
    import torch

    arguments, count = tensors(inputs), min(len(array) for array in inputs.values())
    generator = torch.Generator().manual_seed(seed)
    totals = {group.name: np.zeros(group.units) for group in groups}
    weights = {member.layer: model.get_submodule(member.layer).weight for group in groups for member in group.readers}
    with torch.inference_mode(False), torch.enable_grad():
        for start in range(0, count, batch_rows):
            rows = slice(start, min(count, start + batch_rows))
            outputs = model(*(argument[rows] for argument in arguments))
            total = loss(outputs, rows) if loss is not None else _own_loss(outputs, generator)
            gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)  # type: ignore[arg-type]
            products = {
                layer: torch.zeros_like(weight) if gradient is None else weight.detach() * gradient  # type: ignore[operator]
                for (layer, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
            for group in groups:
                sums = sum(_by_unit(products[m.layer], model.get_submodule(m.layer), m) for m in group.readers)
                totals[group.name] += sums if loss is not None else np.square(sums) / 2
    return {name: np.abs(total) / count for name, total in totals.items()}


def _own_loss(logits: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
    """Return -sum log p(y), y drawn from p: its gradients have mean zero, their squares add up to the Fisher's."""
    import torch

    if logits.ndim != 2 or not logits.is_floating_point():
        raise ModelError(f"taylor without a loss needs logits of shape (rows, classes). Got {tuple(logits.shape)}.")
    drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator).squeeze(1)
    return torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")


def _activations(
    model: "nn.Module", groups: Sequence[Group], inputs: Inputs, *, batch_rows: int
) -> dict[str, NDArray[np.float64]]:
    """Return the mean |x| of each unit at its readers, averaged over readers."""
    import torch
    from torch import nn

    arguments, count = tensors(inputs), min(len(array) for array in inputs.values())
    sums: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def watch(layer: Any, given: Any, _: Any) -> None:
            size = given[0].abs()
            last = isinstance(layer, nn.Linear)
            mean = size.flatten(0, -2).mean(0) if last else size.transpose(0, 1).flatten(1).mean(1)
            sums[name] = sums.get(name, 0) + mean.double() * len(arguments[0][rows])

        return watch

    readers = {member.layer for group in groups for member in group.readers}
    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in readers]
    with torch.no_grad():
        for start in range(0, count, batch_rows):
            rows = slice(start, min(count, start + batch_rows))
            model(*(argument[rows] for argument in arguments))
    for handle in handles:
        handle.remove()
    means = {name: (total / count).numpy() for name, total in sums.items()}
    found = {}
    for group in groups:
        parts = [
            np.array([means[member.layer][list(positions)].mean() for positions in member.positions])
            for member in group.readers
            if member.layer in means
        ]
        found[group.name] = np.mean(parts, axis=0) if parts else np.zeros(group.units)
    return found

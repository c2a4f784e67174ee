"""Train a prepared module: weights and steps together, norm statistics frozen late, the fp32 model as a teacher.

The loss is cross entropy, or, with a teacher,

    (1 - a) CE(y, softmax(s)) + a T^2 KL(softmax(t / T) || softmax(s / T))

with student logits s, teacher logits t and temperature T; T^2 keeps the size of the gradient independent of T. The
teacher is usually the fp32 parent: the quantized network is asked for its answers, not only for the labels.

Batch statistics differ from the running ones that are folded into the exported weights, and at few bits the network
adapts to the difference. So for the last part of training the statistics are frozen.

Source: Hinton et al. 2015, arXiv:1503.02531 (distillation); Jacob et al. 2018, arXiv:1712.05877, and Krishnamoorthi
2018, arXiv:1806.08342, section 3.2.2 (freezing); Loshchilov and Hutter 2017, arXiv:1608.03983 (cosine schedule).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.training.prepare import Inputs, products, quantizers

if TYPE_CHECKING:
    import torch
    from torch import nn

Augment = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes and returns one batch of named tensors; draws from torch's default generator."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a prepared module is trained: SGD with Nesterov momentum under one cosine from warm-up to 0.

    Args:
        epochs: Passes over the inputs, at least 1.
        learning_rate: Highest step size, > 0, reached after the first twentieth.
        batch_size: Rows per update, at least 2; an incomplete last batch is left out.
        momentum: In [0, 1).
        weight_decay: L2 penalty on weights, >= 0; steps, biases and norms have none.
        gradient_norm: Longer gradients are shortened to this length, > 0: without batch statistics they can explode.
        frozen_share: Last share of updates with frozen norm statistics, in [0, 1].
        distillation: a, weight of the teacher's part of the loss, in [0, 1]; not looked at without a teacher.
        temperature: T, > 0.
        seed: Of order and augmentation.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    gradient_norm: float = 1.0
    frozen_share: float = 0.1
    distillation: float = 0.7
    temperature: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "positive"),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("gradient_norm", self.gradient_norm > 0, "positive"),
            ("frozen_share", 0 <= self.frozen_share <= 1, "in [0, 1]"),
            ("distillation", 0 <= self.distillation <= 1, "in [0, 1]"),
            ("temperature", 0 < self.temperature < math.inf, "positive"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise InvalidParameterError(name, rule=rule, value=getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the inputs did.

    Args:
        loss: Mean over its updates.
        accuracy: Share of augmented training rows answered rightly, in [0, 1].
    """

    loss: float
    accuracy: float


def train(
    prepared: "nn.Module",
    inputs: Inputs,
    labels: NDArray[np.int64],
    *,
    recipe: Recipe,
    teacher: "nn.Module | NDArray[np.float32] | None" = None,
    augment: Augment | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Epoch]:
    """Train a prepared module in place and leave it in evaluation mode.

    On one thread the same seed gives the same bits.

    Args:
        prepared: From `prepare`.
        inputs: Named inputs, batch axis first.
        labels: int64 (rows,), from 0.
        recipe: How.
        teacher: The fp32 model, in evaluation mode; or the log-probabilities that a teacher gave for the inputs as
            they are, float32 (rows, classes); None trains on labels alone.
        augment: Changes each batch before the models see it.
        progress: Called after each of epochs * (rows // batch_size) updates.

    Raises:
        InvalidParameterError: If the module holds nothing to train, inputs and labels differ in length, or there
            are fewer rows than a batch.
        ModelError: If the loss is not finite.
    """
    import torch

    if not products(prepared):
        raise InvalidParameterError("prepared", rule="a module from prepare()", value=type(prepared).__name__)
    rows = len(labels)
    if lengths := {name: len(array) for name, array in inputs.items() if len(array) != rows}:
        raise InvalidParameterError("inputs", rule=f"as long as the {rows} labels", value=lengths)
    if rows < recipe.batch_size:
        raise InvalidParameterError("labels", rule=f"at least one batch of {recipe.batch_size}", value=rows)
    updates = rows // recipe.batch_size
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(recipe.seed)
        history = _fit(prepared, inputs, labels, recipe=recipe, updates=updates, hooks=(teacher, augment, progress))
    prepared.eval()
    return history


def distillation_loss(
    logits: "torch.Tensor", labels: "torch.Tensor", teacher_logits: "torch.Tensor | None", *, recipe: Recipe
) -> "torch.Tensor":
    """Return the mean loss of a batch, see the module's docstring; cross entropy without a teacher.

    Args:
        logits, teacher_logits: (rows, classes).
        labels: int64 (rows,).
        recipe: `distillation` and `temperature`.
    """
    from torch.nn import functional

    hard = functional.cross_entropy(logits, labels)
    if teacher_logits is None:
        return hard
    temperature, share = recipe.temperature, recipe.distillation
    soft = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - share) * hard + share * temperature**2 * soft


def _fit(
    prepared: "nn.Module", inputs: Inputs, labels: NDArray[np.int64], *, recipe: Recipe, updates: int, hooks: Any
) -> list[Epoch]:
    import torch

    teacher, augment, progress = hooks
    tensors, targets = {name: torch.from_numpy(array) for name, array in inputs.items()}, torch.from_numpy(labels)
    optimizer = _optimizer(prepared, recipe)
    total = updates * recipe.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: learning_rate_share(update, total))
    freeze_at = total - round(recipe.frozen_share * total)
    prepared.train()
    history: list[Epoch] = []
    for epoch in range(recipe.epochs):
        losses, right = 0.0, 0
        order = torch.randperm(len(targets))[: updates * recipe.batch_size]
        for number, chosen in enumerate(torch.split(order, recipe.batch_size)):
            if epoch * updates + number == freeze_at:
                freeze_statistics(prepared)
            batch = {name: tensor[chosen] for name, tensor in tensors.items()}
            batch = batch if augment is None else augment(batch)
            with torch.no_grad():
                expected = _expected(teacher, batch, chosen)
            logits = prepared(*batch.values())
            loss = distillation_loss(logits, targets[chosen], expected, recipe=recipe)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(prepared.parameters(), recipe.gradient_norm)
            optimizer.step()
            schedule.step()
            losses += float(loss.detach())
            right += int((logits.argmax(1) == targets[chosen]).sum())
            if progress is not None:
                progress()
        if not math.isfinite(losses):
            raise ModelError(f"the training loss must be finite. Got {losses} in epoch {epoch}; lower learning_rate.")
        history.append(Epoch(loss=losses / updates, accuracy=right / (updates * recipe.batch_size)))
    return history


def _expected(teacher: Any, batch: "Mapping[str, torch.Tensor]", chosen: "torch.Tensor") -> "torch.Tensor | None":
    """Return the teacher's logits of a batch, or its log-probabilities, which soften alike; None without a teacher."""
    import torch

    if isinstance(teacher, np.ndarray):
        return torch.from_numpy(teacher[chosen.numpy()])
    return None if teacher is None else cast("torch.Tensor", teacher(*batch.values()))


def freeze_statistics(prepared: "nn.Module") -> None:
    """Normalize by the running statistics from now on, in every product of a prepared module."""
    for product in products(prepared).values():
        product.freeze_statistics()


def learning_rate_share(update: int, total: int) -> float:
    """Return the learning rate of an update over the highest: linear warm-up over a twentieth, then half a cosine."""
    warm_up = max(1, total // 20)
    if update < warm_up:
        return (update + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (update - warm_up) / max(1, total - warm_up)))


def _optimizer(prepared: "nn.Module", recipe: Recipe) -> "torch.optim.Optimizer":
    import torch

    decayed: list[torch.Tensor] = []
    free: list[torch.Tensor] = []
    for parameter in prepared.parameters():
        (decayed if parameter.ndim > 1 and not _is_step(parameter, prepared) else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _is_step(parameter: "torch.Tensor", prepared: "nn.Module") -> bool:
    parts: Mapping[str, Any] = {**products(prepared), **quantizers(prepared)}
    return any(parameter is part.step for part in parts.values())

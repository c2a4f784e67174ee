"""How a student is trained."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation.losses import DIVERGENCES, Divergence

Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is trained: linear warm-up, then half a cosine down to 0.

    Args:
        epochs: Passes over the inputs, at least 1.
        learning_rate: Highest step size, > 0.
        batch_size: Rows per update, at least 2; an incomplete last batch is left out, unless it is the only one.
        optimizer: `adamw`, or `sgd` with Nesterov momentum. Tables with sparse gradients get Adam without decay.
        weight_decay: Of parameters with two axes or more, >= 0.
        momentum: Of SGD, in [0, 1).
        rate_factors: Pairs (name of a submodule or parameter, factor > 0) of the learning rate; the longest name
            that a parameter's name begins with counts.
        temperature: T, in (0, 100].
        alpha: Weight a of the teacher's part of the loss, in [0, 1]; see `losses`.
        divergence: Between teacher and student.
        warm_up_share: Of all updates, in [0, 1).
        gradient_norm: Longer gradients are shortened to this length, > 0; inf for never. Sparse ones are left alone.
        ema_decay: The answering weights are a moving average with this decay per update, in (0, 1); None for none.
        feature_hint, attention_hint: Weights of the hints of either kind, >= 0; see `hints`.
        seed: Of order, dropout and augmentation.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 128
    optimizer: Optimizer = "adamw"
    weight_decay: float = 1e-4
    momentum: float = 0.9
    rate_factors: tuple[tuple[str, float], ...] = ()
    temperature: float = 4.0
    alpha: float = 0.9
    divergence: Divergence = "forward_kl"
    warm_up_share: float = 0.05
    gradient_norm: float = 1.0
    ema_decay: float | None = None
    feature_hint: float = 1.0
    attention_hint: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        optimizers = get_args(Optimizer)
        rules = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "positive"),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("optimizer", self.optimizer in optimizers, f"one of {', '.join(optimizers)}"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("rate_factors", all(0 < factor < math.inf for _, factor in self.rate_factors), "pairs, factors positive"),
            ("temperature", 0 < self.temperature <= 100, "in (0, 100]"),
            ("alpha", 0 <= self.alpha <= 1, "in [0, 1]"),
            ("divergence", self.divergence in DIVERGENCES, f"one of {', '.join(DIVERGENCES)}"),
            ("warm_up_share", 0 <= self.warm_up_share < 1, "in [0, 1)"),
            ("gradient_norm", self.gradient_norm > 0, "positive"),
            ("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "in (0, 1), or None"),
            ("feature_hint", 0 <= self.feature_hint < math.inf, "at least 0"),
            ("attention_hint", 0 <= self.attention_hint < math.inf, "at least 0"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise InvalidParameterError(name, rule=rule, value=getattr(self, name))


def learning_rate_share(update: int, total: int, *, warm_up_share: float) -> float:
    """Return the learning rate of an update over the highest: linear warm-up, then half a cosine.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.

    Args:
        update: From 0.
        total: Number of updates, >= 1.
        warm_up_share: In [0, 1).
    """
    warm_up = math.ceil(warm_up_share * total)
    if update < warm_up:
        return (update + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (update - warm_up) / max(1, total - warm_up)))


@dataclass(frozen=True, kw_only=True)
class Hint:
    """Two submodules whose outputs are compared while the student trains; see `hints`.

    Args:
        student, teacher: Names of submodules, as `named_modules` gives them.
        kind: What is compared.
    """

    student: str
    teacher: str
    kind: Literal["feature", "attention"] = "feature"

    def __post_init__(self) -> None:
        if self.kind not in ("feature", "attention"):
            raise InvalidParameterError("kind", rule="feature or attention", value=self.kind)

"""Find temperature, weight and learning rate by successive halving on held-out rows.

Every setting is trained for a few epochs; the better part goes on to a run with more, and so on, until one is left,
which is trained in full. A cosine schedule cannot be cut short, so each round trains anew with a whole, shorter
schedule. With ratio r, a round has 1 / r of the settings of the round before and r times the epochs: all rounds cost
about the same.

Source: Jamieson and Talwalkar 2016, arXiv:1502.07943.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation.batching import Augment, Inputs, predicted_logits
from halve.techniques.compression.distillation.checkpoint import Checkpoint
from halve.techniques.compression.distillation.recipe import Recipe
from halve.techniques.compression.distillation.sources import Source
from halve.techniques.compression.distillation.train import distil

if TYPE_CHECKING:
    from torch import nn

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
ALPHAS = (0.5, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting as it was judged.

    Args:
        recipe: What was trained, with the epochs of its round.
        score: Of the held-out rows, higher is better.
        round_number: From 0; the last round has one setting.
    """

    recipe: Recipe
    score: float
    round_number: int


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """What settings are judged by; no row of it may be trained on, nor certify the result.

    Args:
        inputs: At least one row.
        score: Takes the student's logits, float32 (rows, classes); returns a number, higher is better.
    """

    inputs: Inputs
    score: Callable[[NDArray[np.float32]], float]


def search(  # noqa: PLR0913 - a verb for users: every choice is a keyword of its own
    make_student: "Callable[[], nn.Module]",
    inputs: Inputs,
    targets: Source,
    *,
    held_out: HeldOut,
    recipe: Recipe,
    labels: NDArray[np.int64] | None = None,
    augment: Augment | None = None,
    views: Sequence[Augment] = (),
    temperatures: Sequence[float] = TEMPERATURES,
    alphas: Sequence[float] = ALPHAS,
    learning_rates: Sequence[float] = (),
    ratio: int = 3,
    checkpoint: Path | Checkpoint | None = None,
    progress: Callable[[Trial], None] | None = None,
) -> "tuple[nn.Module, list[Trial]]":
    """Return the student of the best setting, trained in full, and all trials in the order in which they ran.

    Deterministic on one thread; with a checkpoint, finished trials are read and not trained again.

    Args:
        make_student: Returns an untrained student, the same each time (it is called under the recipe's seed).
        inputs, targets, labels, augment, views: As of `distil`. Without labels only alpha = 1 is tried.
        held_out: What settings are judged by.
        recipe: All that is not searched; its `epochs` are those of the last round.
        temperatures, alphas, learning_rates: What is tried, each with each; no rates: the recipe's alone. With
            alpha = 0 the temperature means nothing, so it is tried once.
        ratio: r >= 2.
        checkpoint: Folder for the state of all runs.
        progress: Called after each trial.

    Raises:
        InvalidParameterError: If there is nothing to try, or a number breaks its rule.
    """
    if ratio < 2:
        raise InvalidParameterError("ratio", rule="at least 2", value=ratio)
    settings = _settings(recipe, temperatures, alphas if labels is not None else [1.0], learning_rates)
    if not settings:
        raise InvalidParameterError("temperatures", rule="at least one setting to try", value=temperatures)
    rounds = _rounds(len(settings), ratio)
    trials: list[Trial] = []
    student: nn.Module | None = None
    for number, count in enumerate(rounds):
        epochs = max(1, round(recipe.epochs / ratio ** (len(rounds) - 1 - number)))
        judged: list[Trial] = []
        for setting in settings[:count]:
            student, score = _trial(
                make_student,
                (inputs, targets),
                held_out,
                recipe=replace(setting, epochs=epochs),
                options={"labels": labels, "augment": augment, "views": views, "checkpoint": checkpoint},
            )
            judged.append(Trial(recipe=replace(setting, epochs=epochs), score=score, round_number=number))
            if progress is not None:
                progress(judged[-1])
        trials += judged
        settings = [trial.recipe for trial in sorted(judged, key=lambda trial: -trial.score)]
    assert student is not None
    return student, trials


def _settings(
    recipe: Recipe, temperatures: Sequence[float], alphas: Sequence[float], learning_rates: Sequence[float]
) -> list[Recipe]:
    found: list[Recipe] = []
    for rate, alpha, temperature in product(learning_rates or [recipe.learning_rate], alphas, temperatures):
        used = temperature if alpha > 0 else recipe.temperature
        setting = replace(recipe, learning_rate=rate, alpha=alpha, temperature=used)
        if setting not in found:
            found.append(setting)
    return found


def _rounds(settings: int, ratio: int) -> list[int]:
    """Return how many settings each round has, from all of them down to one."""
    counts = [settings]
    while counts[-1] > 1:
        counts.append(math.ceil(counts[-1] / ratio) if counts[-1] > ratio else 1)
    return counts


def _trial(
    make_student: "Callable[[], nn.Module]",
    data: tuple[Inputs, Source],
    held_out: HeldOut,
    *,
    recipe: Recipe,
    options: dict[str, Any],
) -> "tuple[nn.Module, float]":
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        student = make_student()
    distil(student, *data, recipe=recipe, **options)
    score = float(held_out.score(predicted_logits(student, held_out.inputs)))
    return student, score if math.isfinite(score) else -math.inf

"""Train a student on a teacher's answers: deterministic, resumable, and done as soon as it is near enough.

On one thread the same seed gives the same bits. The order of an epoch follows from the seed and its number; dropout
and augmentation draw from torch's generator, whose state is kept with everything else. So a run that was killed and
started again gives the bits of one that was not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from halve.errors import MissingExtraError
from halve.techniques.compression.distillation.batching import Augment, Inputs, rows_of
from halve.techniques.compression.distillation.checkpoint import Checkpoint, Keeper
from halve.techniques.compression.distillation.outcome import Check, Distilled
from halve.techniques.compression.distillation.recipe import Hint, Recipe
from halve.techniques.compression.distillation.run import Changes, Run
from halve.techniques.compression.distillation.sources import Loss, RowLoss, Source
from halve.techniques.compression.distillation.updates import state_of

if TYPE_CHECKING:
    import torch
    from torch import nn


def distil(  # noqa: PLR0913 - a verb for users: every choice is a keyword of its own
    student: "nn.Module",
    inputs: Inputs,
    targets: Source,
    *,
    recipe: Recipe,
    labels: NDArray[np.int64] | None = None,
    augment: Augment | None = None,
    views: Sequence[Augment] = (),
    check: Check | None = None,
    checkpoint: Path | Checkpoint | None = None,
    teacher: "nn.Module | None" = None,
    hints: Sequence[Hint] = (),
    auxiliary: "Callable[[nn.Module], torch.Tensor] | None" = None,
    progress: Callable[[], None] | None = None,
) -> Distilled:
    """Train the student in place; leave it in evaluation mode with the best weights.

    Where the inputs hold an `attention_mask`, each batch is cut to its longest row, rounded up to a multiple of 8.

    Args:
        student: Any torch module that returns logits (batch, classes).
        inputs: What it is trained on; labels are not needed.
        targets: A `TeacherCache`, `Targets`, log-probabilities at T = 1 (rows, classes), or a callable that answers
            each batch after augmentation; None with alpha = 0.
        recipe: How.
        labels: int64 (rows,), -1 for a row without; None for none at all.
        augment: Changes each batch at random before the student sees it. Targets that are kept stay those of the
            inputs as they are.
        views: Deterministic changes, at random one for each row and epoch. Targets then hold the answers to all rows
            under the first view, then under the second, and so on: len(views) * rows.
        check: When to stop early, and which epoch is the best.
        checkpoint: Where the state is kept; a run with the same settings, data and first weights goes on from there.
        teacher: For hints alone: the module whose insides are compared; sees the batch that the student sees.
        hints: Which submodules.
        auxiliary: Takes the student after each forward pass; its scalar is added to the loss (a router's balance, say).
        progress: Called after each of epochs * updates(rows, recipe) updates.

    Raises:
        InvalidParameterError: If lengths differ, there is no row, or the targets do not fit the recipe.
        ModelError: If the loss is not finite, or the student's logits do not fit the targets.
        MissingExtraError: If torch, or safetensors with a checkpoint, is not installed.
        StorageError: If the checkpoint cannot be written.
    """
    require_torch()
    rows = rows_of(inputs, labels)
    loss = RowLoss(targets, labels, rows=rows, views=len(views), recipe=recipe)
    changes = Changes(augment=augment, views=tuple(views))
    with seeded(recipe.seed):
        run = Run(student, inputs, loss, recipe=recipe, changes=changes)
        run.check, run.progress, run.auxiliary = check, progress, auxiliary
        run.add_hints(teacher, hints)
        run.keeper = keeper(checkpoint, student, inputs, loss, recipe=recipe, settings=(changes_name(changes), hints))
        return run.finish()


def keeper(
    checkpoint: Path | Checkpoint | None,
    student: "nn.Module",
    inputs: Inputs,
    loss: Loss,
    *,
    recipe: Recipe,
    settings: tuple[object, ...],
) -> Keeper:
    """Return what keeps a run's state, under the hash of all that the run depends on."""
    if checkpoint is None:
        return Keeper(None, ())
    kept = Checkpoint(folder=checkpoint) if isinstance(checkpoint, Path) else checkpoint
    return Keeper(kept, (asdict(recipe), str(student), state_of(student), inputs, loss.identity, *settings))


def changes_name(changes: Changes) -> tuple[str, ...]:
    """Return the names of the changes: what they do cannot be hashed."""
    return tuple(getattr(change, "__qualname__", type(change).__name__) for change in (changes.augment, *changes.views))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give the block torch's generator at a seed, and gradients; leave both as they were."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        yield


def require_torch() -> None:
    """Refuse to go on without torch.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("distillation", package="torch", extra="torch") from None

"""Where a batch's targets come from: answers that are kept, or a teacher that is asked anew.

Kept answers are those to the inputs as they are (or to deterministic views of them). A teacher that is asked anew
sees what the student sees, augmentation included: "consistent teaching", dearer by the teacher's time per batch.

Source: Beyer et al. 2022, arXiv:2106.05237 (consistent teaching).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation.losses import UNLABELLED, bucketed_divergence, combined, log_soften
from halve.techniques.compression.distillation.recipe import Recipe
from halve.techniques.compression.distillation.targets import Targets
from halve.techniques.compression.distillation.teacher_cache import TeacherCache

if TYPE_CHECKING:
    import torch

LiveTeacher = Callable[[dict[str, Any]], Any]
"""Takes a batch of named tensors, returns its log-probabilities or logits (batch, classes)."""

Source = TeacherCache | Targets | NDArray[Any] | LiveTeacher | None
"""What `distil` takes as targets; None for labels alone."""

_HELD_BYTES = 2**28


class Loss(Protocol):
    """What a training run minimizes."""

    @property
    def identity(self) -> object:
        """What it depends on, for the hash of a run: text, arrays, and mappings of them."""

    def __call__(
        self, logits: "torch.Tensor", rows: NDArray[np.int64], batch: "dict[str, torch.Tensor]"
    ) -> "torch.Tensor":
        """Return the mean loss of a batch, a scalar; `rows` are the numbers of its targets."""
        ...


class Answers:
    """The teacher's part of the loss, row by row.

    Args:
        source: See `Source`.
        rows: Rows of targets that there must be.
        recipe: Temperature and divergence.

    Raises:
        InvalidParameterError: If there are targets for another number of rows, or none where alpha > 0.
    """

    def __init__(self, source: Source, *, rows: int, recipe: Recipe) -> None:
        self._recipe = recipe
        self._live: LiveTeacher | None = None
        self.targets: Targets | None = None
        self._masses: NDArray[np.float32] | None = None
        if isinstance(source, TeacherCache | Targets | np.ndarray):
            self.targets = _as_targets(source)
            if len(self.targets) != rows:
                rule = f"for the {rows} rows of inputs and views"
                raise InvalidParameterError("targets", rule=rule, value=len(self.targets))
            if 4 * rows * (self.targets.log_probabilities.shape[1] + 1) <= _HELD_BYTES:
                self._masses = self.targets.log_masses(recipe.temperature)
        elif source is not None:
            self._live = source
        elif recipe.alpha > 0:
            raise InvalidParameterError("alpha", rule="0 where there is no teacher", value=recipe.alpha)

    def divergences(
        self,
        logits: "torch.Tensor",
        rows: NDArray[np.int64],
        batch: "dict[str, torch.Tensor]",
        chosen: "torch.Tensor | None" = None,
    ) -> "torch.Tensor":
        """Return D(teacher_T || student_T) of each row; zeros where alpha is 0.

        Args:
            logits: Of the student, (rows, classes).
            rows: Numbers of the targets.
            batch: What the student saw, for a teacher that is asked anew.
            chosen: Which of the teacher's answers to it count, bool (batch, tokens - 1); None for all.

        Raises:
            ModelError: If the student has another number of classes than the targets.
        """
        import torch

        temperature, divergence = self._recipe.temperature, self._recipe.divergence
        if self._recipe.alpha == 0:
            return torch.zeros(len(logits))
        if self._live is not None:
            with torch.no_grad():
                answers = self._live(batch)
                answers = answers if chosen is None else answers[:, :-1][chosen]
                masses = log_soften(answers, temperature=temperature)
            return bucketed_divergence(logits, None, masses, temperature=temperature, divergence=divergence)
        targets, held = self.targets, self._masses
        assert targets is not None
        if logits.ndim != 2 or logits.shape[1] != targets.classes:
            raise ModelError(
                f"the student must return logits (batch, {targets.classes}). Got shape {tuple(logits.shape)}."
            )
        masses = torch.from_numpy(targets.take(rows).log_masses(temperature) if held is None else held[rows])
        listed = targets.indices
        indices = None if listed is None else torch.from_numpy(listed[rows].astype(np.int64))
        return bucketed_divergence(logits, indices, masses, temperature=temperature, divergence=divergence)

    @property
    def identity(self) -> object:
        """What the answers are, for the hash of a run."""
        if self.targets is None:
            return getattr(self._live, "__qualname__", type(self._live).__name__)
        arrays = {"log_probabilities": self.targets.log_probabilities, "indices": self.targets.indices}
        return {**arrays, "tail": self.targets.tail}


class RowLoss:
    """a T^2 D(teacher_T || student_T) + (1 - a) CE(y, student) of one answer per row; see `losses`.

    Args:
        source: See `Source`; for `rows` rows under each view, view by view.
        labels: int64 (rows,), -1 for none; or None.
        rows: Of the inputs.
        views: Number of views; 0 counts as 1.
        recipe: T, a and D.

    Raises:
        InvalidParameterError: If targets do not fit, or there is neither a teacher nor a label.
    """

    def __init__(
        self, source: Source, labels: NDArray[np.int64] | None, *, rows: int, views: int = 0, recipe: Recipe
    ) -> None:
        self._recipe, self._rows = recipe, rows
        self._answers = Answers(source, rows=rows * max(1, views), recipe=recipe)
        self._labels = labels
        if recipe.alpha == 0 and (labels is None or not (labels != UNLABELLED).any()):
            raise InvalidParameterError("labels", rule="given where alpha is 0", value=labels)

    @property
    def identity(self) -> object:
        """See `Loss`."""
        return {"answers": self._answers.identity, "labels": self._labels}

    def __call__(
        self, logits: "torch.Tensor", rows: NDArray[np.int64], batch: "dict[str, torch.Tensor]"
    ) -> "torch.Tensor":
        """Return the mean loss of a batch."""
        import torch

        divergences = self._answers.divergences(logits, rows, batch)
        labels = None if self._labels is None else torch.from_numpy(self._labels[rows % self._rows].astype(np.int64))
        recipe = self._recipe
        return combined(divergences, logits, labels, temperature=recipe.temperature, alpha=recipe.alpha)


def _as_targets(source: TeacherCache | Targets | NDArray[Any]) -> Targets:
    if isinstance(source, TeacherCache):
        return source.targets()
    return source if isinstance(source, Targets) else Targets.dense(source)

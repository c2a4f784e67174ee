"""Hints: the student's insides are drawn towards the teacher's, at named submodules, through forward hooks.

A feature hint is the mean squared distance between the teacher's features and a learned linear projection of the
student's: their widths may differ, and the projection is thrown away after training.

An attention hint compares where either looks, not what it sees there, so that widths need not agree at all:

- images (batch, channels, height, width): the map of the mean squared activation over channels, at unit length; the
  loss is the mean squared distance of the maps, times the number of places;
- tokens (batch, tokens, width): the relations softmax(x x^T / sqrt(width)) of every token to every other; the loss is
  the mean KL(teacher || student) over tokens.

Source: Romero et al. 2015, arXiv:1412.6550 (feature hints); Zagoruyko and Komodakis 2017, arXiv:1612.03928 (attention
maps); Wang et al. 2020, arXiv:2002.10957 (relations).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch  # noqa: TID253 - modules are classes; only `train` imports this module, inside functions.
from torch import nn  # noqa: TID253

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation.recipe import Hint, Recipe


class FeatureHint(nn.Module):
    """Mean squared distance between the teacher's features and a linear projection of the student's.

    Args:
        student_width, teacher_width: Length of the channel axis: the second of images, the last otherwise.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(student_width, teacher_width, bias=False)

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mean over rows (and tokens that the mask keeps, and places), a scalar.

        Args:
            student, teacher: (batch, width), (batch, tokens, width) or (batch, channels, height, width); the
                teacher's map is pooled to the size of the student's.
            mask: (batch, tokens), 1 for tokens that count.
        """
        if student.ndim == 4:
            teacher = _resized(teacher, student).movedim(1, -1)
            student = student.movedim(1, -1)
        distances = (self.projection(student) - teacher).square().mean(dim=-1)
        return _mean(distances, mask)


class AttentionHint(nn.Module):
    """Distance between where student and teacher look; has no parameters."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mean over rows (and tokens that the mask keeps), a scalar.

        Args:
            student, teacher: Both (batch, tokens, width) or both (batch, channels, height, width).
            mask: (batch, tokens), 1 for tokens that count.
        """
        if student.ndim == 4:
            maps = attention_map(student) - attention_map(_resized(teacher, student))
            return maps.square().sum(dim=1).mean()
        of, against = (log_relations(states, mask) for states in (teacher, student))
        return _mean((of.exp() * (of - against)).sum(dim=-1), mask)


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Return the mean squared activation over channels at unit length, (batch, height * width)."""
    unit: torch.Tensor = nn.functional.normalize(features.square().mean(dim=1).flatten(1), dim=1)
    return unit


def log_relations(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return log softmax(x x^T / sqrt(width)) over the tokens that the mask keeps, (batch, tokens, tokens)."""
    scores = states @ states.transpose(1, 2) / states.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask[:, None, :] == 0, -1e4)
    relations: torch.Tensor = scores.log_softmax(dim=-1)
    return relations


class HintLoss(nn.Module):
    """The weighted sum of all hints of a run.

    Args:
        student, teacher: Torch modules.
        hints: Which submodules.
        recipe: The weights of the two kinds.
        batch: A real batch, to learn the widths from.

    Raises:
        InvalidParameterError: If a submodule is not there, or hints are wanted without a teacher.
        ModelError: If a submodule returns no tensor, or the shapes cannot be compared.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        hints: Sequence[Hint],
        *,
        recipe: Recipe,
        batch: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__()
        if teacher is None and hints:
            raise InvalidParameterError("teacher", rule="a torch module where there are hints", value=None)
        self._hints, self._recipe = tuple(hints), recipe
        self._models = (student, teacher)  # In a tuple, so that they are no submodules.
        self.parts = nn.ModuleList()
        if not hints:
            return
        was_training = student.training
        student.eval()
        with torch.no_grad(), self.watched() as seen:
            student(*batch.values())
            self._ask_teacher(batch)
        student.train(was_training)
        for hint in self._hints:
            mine, theirs = seen["student", hint.student], seen["teacher", hint.teacher]
            if mine.ndim != theirs.ndim or mine.ndim not in (2, 3, 4) or (hint.kind == "attention" and mine.ndim == 2):
                shapes = f"{tuple(mine.shape)} and {tuple(theirs.shape)}"
                raise ModelError(f"{hint.student!r} and {hint.teacher!r} cannot be compared by shape. Got {shapes}.")
            axis = 1 if mine.ndim == 4 else -1
            widths = (mine.shape[axis], theirs.shape[axis])
            self.parts.append(FeatureHint(*widths) if hint.kind == "feature" else AttentionHint())

    @contextmanager
    def watched(self) -> "Iterator[dict[tuple[str, str], torch.Tensor]]":
        """Yield a dictionary that fills with the outputs of the named submodules as the models run."""
        seen: dict[tuple[str, str], torch.Tensor] = {}
        student, teacher = self._models
        handles = []
        for hint in self._hints:
            for side, model, name in (("student", student, hint.student), ("teacher", teacher, hint.teacher)):
                submodule = dict(model.named_modules()).get(name) if model is not None else None
                if submodule is None:
                    raise InvalidParameterError(f"hint.{side}", rule="the name of a submodule", value=name)
                handles.append(submodule.register_forward_hook(_keep(seen, (side, name))))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def forward(
        self, seen: "Mapping[tuple[str, str], torch.Tensor]", batch: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted sum, given what the student's submodules returned on this batch."""
        if not self._hints:
            return torch.zeros(())
        with torch.no_grad():
            self._ask_teacher(batch)
        total = torch.zeros(())
        weights = {"feature": self._recipe.feature_hint, "attention": self._recipe.attention_hint}
        for hint, part in zip(self._hints, self.parts, strict=True):
            mine, theirs = seen["student", hint.student], seen["teacher", hint.teacher]
            mask = batch.get("attention_mask") if mine.ndim == 3 else None
            total = total + weights[hint.kind] * part(mine, theirs, mask)
        return total

    def _ask_teacher(self, batch: Mapping[str, torch.Tensor]) -> None:
        teacher = self._models[1]
        if teacher is not None:
            teacher(*batch.values())


def _keep(seen: "dict[tuple[str, str], torch.Tensor]", key: tuple[str, str]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            values = list(output.values()) if isinstance(output, Mapping) else list(output)
            output = values[0]
        if not isinstance(output, torch.Tensor):
            raise ModelError(f"submodule {key[1]!r} of the {key[0]} must return a tensor. Got {type(output).__name__}.")
        seen[key] = output

    return hook


def _resized(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    if teacher.shape[-2:] == student.shape[-2:]:
        return teacher
    return nn.functional.adaptive_avg_pool2d(teacher, (student.shape[-2], student.shape[-1]))


def _mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None or values.ndim == 1:
        return values.mean()
    kept = mask.to(values.dtype)
    return (values * kept).sum() / kept.sum().clamp(min=1)

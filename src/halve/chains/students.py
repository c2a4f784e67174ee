"""A student is trained on its teacher's answers and written as ONNX, its weights beside it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halve.chains.files import write_module
from halve.chains.lesson import Inputs, Lesson, all_cores, module_of
from halve.chains.recipes import shown
from halve.chains.record import ChainRecord, ChainStep
from halve.core import Payload, TensorAnswerer
from halve.errors import ModelError
from halve.techniques.compression import distillation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from halve.techniques.compression.distillation import Distilled, Recipe

ReadInputs = Callable[["Sequence[Payload]"], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Student:
    """What is trained.

    Args:
        module: Untrained, or cut from its teacher; trained in place.
        read: Turns payloads into its tensors, batch axis first, in the order of `forward`.
    """

    module: "nn.Module"
    read: ReadInputs

    @classmethod
    def of(cls, answerer: TensorAnswerer, *, owner: str) -> "Student":
        """Return a copy of the network that an engine has loaded; ModelError if it is no torch module."""
        return cls(module=module_of(answerer, owner=owner), read=answerer.inputs)


def write_student(folder: Path, *, lesson: Lesson, student: Student, recipe: "Recipe", name: str) -> "Distilled":
    """Train a student and write `model.onnx`, `weights.safetensors` and `recipe.json`.

    Args:
        folder: Exists; other files in it stay.
        lesson: Teacher and data.
        student: What is trained.
        recipe: How.
        name: Of the checkpoints: a build that was killed goes on from them.

    Raises:
        ModelError: If the teacher gives no probabilities, or the student cannot be trained or exported.
        MissingExtraError: If a library is not installed.
    """
    cache = lesson.answers()
    inputs = student.read(lesson.training.payloads)
    held_out = None if lesson.held_out is None else student.read(lesson.held_out.payloads)
    done = taught(student.module, inputs, lesson=lesson, cache=cache, recipe=recipe, name=name, held_out=held_out)
    record = started(lesson).with_step(distillation_step(lesson, cache, recipe, done))
    write_module(folder, student.module, inputs, record=record)
    return done


def taught(
    module: "nn.Module",
    inputs: Inputs,
    *,
    lesson: Lesson,
    cache: "distillation.TeacherCache",
    recipe: "Recipe",
    name: str,
    held_out: Inputs | None = None,
    auxiliary: "Callable[[nn.Module], torch.Tensor] | None" = None,
) -> "Distilled":
    """Train a module in place on the teacher's answers; a run that was killed goes on from its last checkpoint."""
    rows = len(next(iter(inputs.values())))
    if rows != len(lesson.training):
        raise ModelError(f"inputs of a student must be as many as the payloads, {len(lesson.training)}. Got {rows}.")
    total = recipe.epochs * distillation.updates(rows, recipe)
    check = None
    if lesson.held_out is not None and held_out is not None:
        check = distillation.Check(
            inputs=held_out,
            scores=lesson.held_out.scores,
            upper_bound=lesson.held_out.upper_bound,
            target=lesson.held_out.target,
        )
    with all_cores(), lesson.progress.task(f"training {name}", total=total) as advance:
        return distillation.distil(
            module,
            inputs,
            cache,
            labels=lesson.labels,
            recipe=recipe,
            augment=lesson.training.augment,
            check=check,
            checkpoint=lesson.workspace(f"training-{name}"),
            auxiliary=auxiliary,
            progress=advance,
        )


def started(lesson: Lesson) -> ChainRecord:
    """Return a record without steps."""
    return ChainRecord(
        parent=lesson.teacher.name,
        parent_fingerprint=lesson.teacher.fingerprint,
        training_sha256=lesson.training.sha256,
        n_training=len(lesson.training),
        seed=lesson.seed,
    )


def distillation_step(
    lesson: Lesson, cache: "distillation.TeacherCache", recipe: "Recipe", done: "Distilled"
) -> ChainStep:
    """Return what a training did."""
    figures = {"seconds": done.seconds, "teacher_cache_bytes_per_example": cache.bytes_per_example}
    if done.gap_upper_bound is not None:
        figures["gap_upper_bound"] = done.gap_upper_bound
    return ChainStep(
        technique="distillation",
        parameters={
            "teacher": lesson.teacher.name,
            **shown(recipe),
            "best_epoch": done.best_epoch,
            "stopped_early": done.stopped_early,
        },
        figures=figures,
    )


def searched(make: Callable[[], Student], *, lesson: Lesson, recipe: "Recipe") -> "Recipe":
    """Return the recipe with the temperature and weight that did best by successive halving; its epochs stay.

    Settings are judged on the rows that early stopping looks at; without those the recipe stays as it is.
    """
    held_out = lesson.held_out
    if held_out is None:
        return recipe
    first = make()
    inputs, unseen = first.read(lesson.training.payloads), first.read(held_out.payloads)
    judge = distillation.HeldOut(inputs=unseen, score=lambda logits: float(held_out.scores(logits).mean()))
    with all_cores(), lesson.progress.task("searching temperature and alpha", total=1) as advance:
        _, trials = distillation.search(
            lambda: make().module,
            inputs,
            lesson.answers(),
            held_out=judge,
            recipe=recipe,
            labels=lesson.labels,
            augment=lesson.training.augment,
            checkpoint=lesson.workspace("search"),
        )
        advance()
    return replace(trials[-1].recipe, epochs=recipe.epochs)

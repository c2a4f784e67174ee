"""`halve.distill`: one student, one teacher, without the ladder. Reads teacher, student and data, and hands them on."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from halve import chains
from halve.assembly import entries
from halve.assembly.lessons import Given, Judge, Parts, Promise, in_parts, read_training, workspace_beside
from halve.assembly.made import MadeModel, finish
from halve.assembly.staging import Staged, stage
from halve.assembly.students import OpenedStudent, open_student
from halve.core import Augment, Progress, TrainingSet
from halve.core.progress import Silent
from halve.demo.training import cache_folder
from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Recipe

if TYPE_CHECKING:
    from torch import nn

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


def distill(  # noqa: PLR0913 - a verb for users: every choice is a keyword of its own
    teacher: "str | Path | nn.Module",
    *,
    student: "str | Path | nn.Module",
    data: Given,
    out: str | Path,
    temperature: float | None = None,
    alpha: float | None = None,
    divergence: Divergence = "forward_kl",
    search: bool = False,
    epochs: int | None = None,
    learning_rate: float | None = None,
    integers: bool = False,
    payload: str = "payload",
    label: str | None = None,
    labels: Sequence[str] = (),
    tokenizer: str | Path | None = None,
    max_tokens: int = 64,
    augment: str | Augment | None = None,
    hold_out: float = 0.2,
    quality_drop_at_most: float = 0.01,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> MadeModel:
    """Train a student on the answers of a teacher, and say how far it is from it.

    The teacher is asked once; its answers are kept in HALVE_CACHE and serve every student. Killed at any time, the
    same command goes on where it was.

    Args:
        teacher: An ONNX file, `module:function` returning a torch module, the module itself, or the .json file of an
            OpenAI-compatible endpoint.
        student: `module:function` returning an untrained torch module, the module itself, or, for texts, `convolution`
            (nearer to the teacher) or `ngrams` (cheaper).
        data: Inputs like the requests to come; labels are welcome and not needed.
        out: Folder to write; it must not exist yet.
        temperature, alpha: T of the softened answers, and the weight of the teacher's part of the loss: 1 never looks
            at labels. By kind of student.
        divergence: Between the teacher's and the student's answers.
        search: Look for temperature and alpha by successive halving, on the held-out half that stops training.
        epochs, learning_rate: Of the training; by kind of student.
        integers: Put the student into integers as well.
        payload, label: Columns of a data file.
        labels: Class names in the order of the teacher's outputs, where labels are names.
        tokenizer: For texts: a Hugging Face `tokenizer.json`, or `module:function` returning its path.
        max_tokens: Longer texts are cut.
        augment: Changes a batch of named tensors at random in a way that changes no right answer.
        hold_out: Share of the data that is not learned from: half says when to stop, half measures the result.
        quality_drop_at_most: Training stops once the upper bound of the gap to the teacher is at most that.
        confidence: Of the bounds.
        seed: Of everything that draws.
        progress: Where bars go; silent by default.

    Raises:
        UserError: If teacher, student, data or numbers cannot be used; one sentence each.
    """
    wishes = {
        "temperature": temperature,
        "alpha": alpha,
        "divergence": divergence,
        "epochs": epochs,
        "learning_rate": learning_rate,
    }
    target, promise = new_target(out), Promise(drop_at_most=quality_drop_at_most, confidence=confidence)
    wished(Recipe(epochs=1, learning_rate=1e-3), wishes)  # refuses numbers before the teacher is asked
    with entries.importable(Path.cwd()), tempfile.TemporaryDirectory(prefix="halve-") as scratch:
        training = read_training(data, payload=payload, label=label, labels=labels, augment=augment)
        reads = reading(training, tokenizer=tokenizer, max_tokens=max_tokens)
        source = stage(teacher, folder_in(scratch, "teacher"), field="teacher", endpoints=True, **reads)
        parts = in_parts(training, share=hold_out)
        lesson = lesson_of(source, parts, target, promise=promise, seed=seed, progress=progress or Silent())
        opened = open_student(student, folder_in(scratch, "student"), source=source, lesson=lesson, **reads)
        trained = _trained(opened, folder_in(scratch, "fp32"), wishes=wishes, search=search)
        calibration = trained.read(parts.learn.payloads[: chains.CALIBRATION_ROWS]) if integers else None
        return finish(
            target,
            fp32=Path(scratch, "fp32"),
            calibration=calibration,
            reads=opened.reads,
            teacher=source,
            lesson=replace(lesson, training=parts.measure),
            promise=promise,
        )


def new_target(out: str | Path) -> Path:
    """Return the folder to be written; InvalidParameterError if it is there already."""
    target = Path(out)
    if target.exists():
        raise InvalidParameterError("out", rule="a folder that does not exist yet", value=str(target))
    return target


def reading(training: TrainingSet, *, tokenizer: str | Path | None, max_tokens: int) -> dict[str, Any]:
    """Return how the payloads are read, for `stage`; InvalidParameterError if texts have no tokenizer."""
    if not isinstance(training.payloads[0], str):
        return {"tokenizer": None, "max_tokens": max_tokens}
    if tokenizer is None:
        raise InvalidParameterError("tokenizer", rule="given for texts", value=None)
    return {"tokenizer": tokenizer, "max_tokens": max_tokens}


def folder_in(scratch: str | Path, name: str) -> Path:
    """Return a new folder of that name."""
    folder = Path(scratch, name)
    folder.mkdir()
    return folder


def lesson_of(
    source: Staged, parts: Parts, target: Path, *, promise: Promise, seed: int, progress: Progress
) -> chains.Lesson:
    """Return what is taught, with a stop as soon as the gap's upper bound keeps the promise."""
    question = {"teacher": source.model.fingerprint, "data": parts.learn.sha256, "seed": seed}
    lesson = chains.Lesson(
        teacher=source.model,
        load=source.load,
        training=parts.learn,
        caches=cache_folder() / "teachers",
        workspace=workspace_beside(target, question),
        seed=seed,
        progress=progress,
    )
    judge = Judge.of(replace(lesson, training=parts.stop))
    return replace(lesson, held_out=judge.held_out(parts.stop, promise=promise))


def wished(recipe: Recipe, wishes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with what the user asked for."""
    return replace(recipe, **{name: value for name, value in wishes.items() if value is not None})


def _trained(opened: OpenedStudent, folder: Path, *, wishes: Mapping[str, Any], search: bool) -> chains.Student:
    """Train the student, and write its chain into the folder."""
    recipe = wished(opened.recipe, wishes)
    if search:
        recipe = chains.searched(opened.make, lesson=opened.lesson, recipe=recipe)
    student = opened.make()
    chains.write_student(folder, lesson=opened.lesson, student=student, recipe=recipe, name="student")
    return student

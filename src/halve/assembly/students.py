"""What `halve distill --student` names: a network of the user's, or one of ours for texts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from halve import chains
from halve.assembly.staging import Staged, stage
from halve.core import TensorAnswerer
from halve.engines.preprocess import preparation
from halve.errors import InvalidParameterError

if TYPE_CHECKING:
    from torch import nn

    from halve.techniques.compression.distillation import Recipe


@dataclass(frozen=True, kw_only=True)
class OpenedStudent:
    """A student ready to be trained.

    Args:
        make: Returns it untrained, the same each time.
        reads: Whose preprocessing and tokenizer it has.
        lesson: What it is taught: for texts with variations of the texts.
        recipe: How its kind is trained unless the user says otherwise.
    """

    make: Callable[[], chains.Student]
    reads: Staged
    lesson: chains.Lesson
    recipe: "Recipe"


def open_student(
    given: "str | Path | nn.Module",
    folder: Path,
    *,
    source: Staged,
    lesson: chains.Lesson,
    tokenizer: str | Path | None,
    max_tokens: int,
) -> OpenedStudent:
    """Return the student that a name stands for.

    Args:
        given: `module:function` returning a torch module, the module itself, `convolution` or `ngrams`.
        folder: Exists and is empty: its files go there.
        source: The teacher.
        lesson: What it teaches.
        tokenizer, max_tokens: As for `stage`.

    Raises:
        InvalidParameterError: If it is a file: a file cannot be trained.
    """
    if given in chains.TEXT_STUDENTS:
        return _for_texts(given, source, lesson)
    staged = stage(given, folder, tokenizer=tokenizer, max_tokens=max_tokens, field="student")
    if staged.model.engine != "torch":
        rule = f"module:function returning a torch module, or one of {', '.join(chains.TEXT_STUDENTS)}"
        raise InvalidParameterError("student", rule=rule, value=str(given))

    def make() -> chains.Student:
        with staged.opened() as answerer:
            return chains.Student.of(answerer, owner=staged.model.name)

    return OpenedStudent(make=make, reads=staged, lesson=lesson, recipe=chains.student_recipe(lesson))


def _for_texts(kind: chains.TextStudent, source: Staged, lesson: chains.Lesson) -> OpenedStudent:
    if not isinstance(lesson.training.payloads[0], str):
        raise InvalidParameterError("student", rule="a network of yours where payloads are no texts", value=kind)
    read = preparation(source.model, {file.path: source.folder / file.path for file in source.model.files})
    tokenizer = chains.tokenizer_of(source.model, source.folder)
    answerer = source.load()
    try:
        vectors = chains.word_vectors(answerer) if isinstance(answerer, TensorAnswerer) else None
    finally:
        answerer.close()
    wider = chains.with_variations(lesson, tokenizer=tokenizer, vectors=vectors)
    return OpenedStudent(
        make=lambda: chains.text_student(kind, wider, tokenizer=tokenizer, vectors=vectors, read=read),
        reads=source,
        lesson=wider,
        recipe=chains.text_recipe(wider, kind),
    )

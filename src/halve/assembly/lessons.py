"""What commands that train share: data, what is held out of it, and a folder that a killed command finds again."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from halve.assembly import entries
from halve.assembly.staging import is_entry
from halve.chains import HeldOut, Lesson
from halve.core import Answerer, Augment, FloatArray, IntArray, Payload, TrainingSet
from halve.core.hashing import payload_digest, payload_hash
from halve.errors import InvalidParameterError, StorageError
from halve.gate import PairedDrop, compare, drop_upper_bound
from halve.workload import read_columns, training_from, training_set

Given = str | Path | Sequence[Payload] | tuple[Sequence[Payload], Sequence[int]]
"""A JSONL, CSV, Parquet or NPZ file, `module:function`, payloads, or (payloads, class indices)."""


def read_training(
    given: Given,
    *,
    payload: str,
    label: str | None,
    labels: Sequence[str] = (),
    augment: str | Augment | None = None,
) -> TrainingSet:
    """Return what to train on.

    Args:
        given: Where it is.
        payload, label: Columns of a file; without a label nothing is labelled.
        labels: Class names in the order of the outputs, where references are names.
        augment: A function, or `module:function`, that changes a batch.

    Raises:
        UserError: If it cannot be read or used.
    """
    found: object = given
    if isinstance(given, str | Path) and is_entry(str(given)):
        found = entries.call(str(given), field="data")
    if isinstance(found, str | Path):
        payloads, references = read_columns(Path(found), payload=payload, reference=label)
        training = training_set(payloads, references, labels=labels, source=str(found))
    else:
        training = training_from(found, labels=labels)
    if isinstance(augment, str):
        augment = cast("Augment", entries.resolve(augment, field="augment"))
    return replace(training, augment=augment)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Training data in three: to learn from, to see when to stop, and to measure on once."""

    learn: TrainingSet
    stop: TrainingSet
    measure: TrainingSet


def in_parts(training: TrainingSet, *, share: float) -> Parts:
    """Return the data in three parts by the content of the payloads; `share` of it held out, half to stop by.

    Equal payloads are never in two parts.

    Raises:
        InvalidParameterError: If the share is out of range, or a part would be empty.
    """
    if not 0 < share < 1:
        raise InvalidParameterError("hold_out", rule="in (0, 1)", value=share)
    places = np.array([int.from_bytes(payload_digest(each, salt="part")[:8], "big") for each in training.payloads])
    at = places / 2**64
    masks = (at >= share, at < share / 2, (at >= share / 2) & (at < share))
    if not all(mask.any() for mask in masks):
        rule = f"large enough for {len(training)} payloads: each of its halves, and the rest, must hold one"
        raise InvalidParameterError("hold_out", rule=rule, value=share)
    learn, stop, measure = (_rows(training, np.flatnonzero(mask)) for mask in masks)
    return Parts(learn=learn, stop=stop, measure=measure)


def _rows(training: TrainingSet, rows: IntArray) -> TrainingSet:
    payloads = [training.payloads[row] for row in rows]
    return replace(
        training, payloads=payloads, references=training.references[rows], sha256=payload_hash(payloads), left_out=0
    )


@dataclass(frozen=True, kw_only=True)
class Promise:
    """How much worse than its teacher a model may be, and how sure we must be of it."""

    drop_at_most: float
    confidence: float

    def __post_init__(self) -> None:
        if not 0 < self.drop_at_most < 1:
            raise InvalidParameterError("quality_drop_at_most", rule="in (0, 1)", value=self.drop_at_most)
        if not 0.5 < self.confidence < 1:
            raise InvalidParameterError("confidence", rule="in (0.5, 1)", value=self.confidence)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scores answers against labels where there are any, else against the teacher's answers.

    Args:
        right: int64 (n,): the class that counts as right, of each row that is scored.
        rows: Which rows are scored.
        teacher: Scores of the teacher, float64 (n,).
        judged_by: `labels`, or `the teacher's answers`.
    """

    right: IntArray
    rows: IntArray
    teacher: FloatArray
    judged_by: str

    @classmethod
    def of(cls, lesson: Lesson) -> "Judge":
        """Return the judge of a lesson's payloads; the teacher is asked, or its cache."""
        told = lesson.answers().log_probabilities().argmax(axis=1).astype(np.int64)
        labelled = np.flatnonzero(lesson.training.references >= 0)
        if len(labelled) == 0:
            everything = np.arange(len(told))
            return cls(right=told, rows=everything, teacher=np.ones(len(told)), judged_by="the teacher's answers")
        right = lesson.training.references[labelled]
        return cls(right=right, rows=labelled, teacher=(told[labelled] == right).astype(float), judged_by="labels")

    def scores(self, logits: NDArray[Any]) -> FloatArray:
        """Return 1 where the likeliest class is right, else 0; logits or probabilities (all rows, classes)."""
        return np.asarray(logits.argmax(axis=1)[self.rows] == self.right, dtype=np.float64)

    def held_out(self, training: TrainingSet, *, promise: Promise) -> HeldOut:
        """Return what early stopping looks at."""
        return HeldOut(
            payloads=training.payloads,
            scores=self.scores,
            upper_bound=lambda scores: drop_upper_bound(self.teacher, scores, confidence=promise.confidence),
            target=promise.drop_at_most,
        )

    def compared(self, answerer: Answerer, training: TrainingSet, *, promise: Promise) -> PairedDrop:
        """Return teacher against student on these payloads, with an exact bound."""
        payloads = training.payloads
        answers = [answerer.answer(payloads[at : at + 32]).answers for at in range(0, len(payloads), 32)]
        found = (np.concatenate(answers)[self.rows] == self.right).astype(float)
        return compare(self.teacher, found, margin=promise.drop_at_most, confidence=promise.confidence)


def workspace_beside(out: Path, question: Mapping[str, object]) -> Callable[[str], Path]:
    """Return what gives folders for work in progress, beside the folder to be written.

    The same command finds them again after a kill -9; another question starts anew. The name "" is the whole of it.
    Nothing is there before the first folder is asked for.

    Raises:
        StorageError: If it cannot be written; what is returned may raise it too.
    """
    root = out.resolve().parent / f".{out.name}.work"
    note, text = root / "question.json", json.dumps(dict(question), sort_keys=True, default=str)

    def give(name: str) -> Path:
        folder = root / name if name else root
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                note.write_text(text)
        except OSError as error:
            raise StorageError.of(root, error) from error
        return folder

    try:
        if root.exists() and (not note.is_file() or note.read_text() != text):
            shutil.rmtree(root)
    except OSError as error:
        raise StorageError.of(root, error) from error
    return give

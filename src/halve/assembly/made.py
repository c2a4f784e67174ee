"""A model that a command made, in a folder of its own, and how it compares with what it was made from."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halve import chains
from halve.assembly.lessons import Judge, Promise
from halve.assembly.staging import TOKENIZER, Staged
from halve.core import Answerer, Model, Recipe, TrainingSet
from halve.engines import engine
from halve.gate import PairedDrop
from halve.measure.artifacts import adopt_files
from halve.techniques.compression.quantization import interleaved_seconds


@dataclass(frozen=True, kw_only=True)
class MadeModel:
    """A model in a folder of its own.

    Args:
        model: What a stack can hold; file paths are relative to `folder`.
        folder: `model.onnx`, `weights.safetensors`, `recipe.json`, and what else its chain wrote.
        record: What is in `recipe.json`.
        drop: Teacher against this model, on payloads that neither training nor stopping saw.
        judged_by: `labels`, or `the teacher's answers`: what counts as right in `drop`.
        speed_ratio: Seconds of the teacher over this model's, one request at a time, each by its engine on one thread;
            None where the teacher is a remote endpoint.
    """

    model: Model
    folder: Path
    record: chains.ChainRecord
    drop: PairedDrop
    judged_by: str
    speed_ratio: float | None


def write_chain(folder: Path, *, fp32: Path, calibration: chains.Inputs | None, tokenizer: Path | None) -> None:
    """Put the files of a chain into the folder that the user gets: as they are, or with the model in integers.

    Args:
        folder: Exists and is empty.
        fp32: Where the chain wrote its files.
        calibration: Inputs for integers; None leaves fp32.
        tokenizer: Copied beside the model.
    """
    if calibration is not None:
        chains.write_integers(folder, source=fp32, inputs=calibration)
    for path in fp32.iterdir():
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / TOKENIZER)


def finished(folder: Path, *, teacher: Staged, reads: Model, lesson: chains.Lesson, promise: Promise) -> MadeModel:
    """Return what lies in a finished folder, loaded once to be compared and timed.

    Args:
        folder: Finished.
        teacher: What it was made from.
        reads: Whose preprocessing it has.
        lesson: Of payloads that nothing has seen.
        promise: What it is compared with.
    """
    judge, measure = Judge.of(lesson), lesson.training
    record = chains.read_record(folder)
    model = replace(
        reads,
        name=folder.name,
        engine="onnxruntime",
        entry=None,
        files=adopt_files(folder, relative_to=folder),
        parent=teacher.model.name,
        recipe=Recipe(technique=record.steps[-1].technique, parameters={"chain": record.chain, "seed": record.seed}),
    )
    answerer = engine("onnxruntime").load(model, threads=1, folder=folder)
    try:
        drop = judge.compared(answerer, measure, promise=promise)
        ratio = None if teacher.model.engine == "openai_http" else _speed_ratio(teacher, answerer, measure)
    finally:
        answerer.close()
    return MadeModel(model=model, folder=folder, record=record, drop=drop, judged_by=judge.judged_by, speed_ratio=ratio)


def _speed_ratio(teacher: Staged, answerer: Answerer, measure: TrainingSet) -> float:
    one = measure.payloads[:1]
    loaded = teacher.load()
    try:
        seconds = interleaved_seconds({"teacher": lambda: loaded.answer(one), "student": lambda: answerer.answer(one)})
    finally:
        loaded.close()
    return float(np.median(seconds["teacher"]) / np.median(seconds["student"]))

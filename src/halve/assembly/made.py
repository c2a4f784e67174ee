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
from halve.measure.artifacts import adopt_files, new_folder
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


def finish(
    target: Path,
    *,
    fp32: Path,
    calibration: chains.Inputs | None,
    reads: Staged,
    teacher: Staged,
    lesson: chains.Lesson,
    promise: Promise,
) -> MadeModel:
    """Put the files of a chain where the user wants them, compared with the teacher first, and clear the workspace.

    Whatever is killed before the folder is in its place can be done again by the same command.

    Args:
        target: The folder to be written.
        fp32: Where the chain wrote its files.
        calibration: Inputs for integers; None leaves fp32.
        reads: Whose preprocessing and tokenizer the model has.
        teacher: What it was made from.
        lesson: Of payloads that nothing has seen.
        promise: What it is compared with.
    """
    judge = Judge.of(lesson)
    with new_folder(target) as folder:
        _write(folder, fp32=fp32, calibration=calibration, reads=reads)
        made = _compared(
            folder, name=target.name, teacher=teacher, reads=reads.model, lesson=lesson, judge=judge, promise=promise
        )
    shutil.rmtree(lesson.workspace(""))
    return replace(made, folder=target)


def _write(folder: Path, *, fp32: Path, calibration: chains.Inputs | None, reads: Staged) -> None:
    if calibration is not None:
        chains.write_integers(folder, source=fp32, inputs=calibration)
    for path in fp32.iterdir():
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if reads.model.preprocess.tokenizer_file is not None:
        shutil.copyfile(reads.folder / reads.model.preprocess.tokenizer_file, folder / TOKENIZER)


def _compared(
    folder: Path,
    *,
    name: str,
    teacher: Staged,
    reads: Model,
    lesson: chains.Lesson,
    judge: Judge,
    promise: Promise,
) -> MadeModel:
    record = chains.read_record(folder)
    model = replace(
        reads,
        name=name,
        engine="onnxruntime",
        entry=None,
        files=adopt_files(folder, relative_to=folder),
        parent=teacher.model.name,
        recipe=Recipe(technique=record.steps[-1].technique, parameters={"chain": record.chain, "seed": record.seed}),
    )
    answerer = engine("onnxruntime").load(model, threads=1, folder=folder)
    try:
        drop = judge.compared(answerer, lesson.training, promise=promise)
        is_remote = teacher.model.engine == "openai_http"
        ratio = None if is_remote else _speed_ratio(teacher, answerer, lesson.training)
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

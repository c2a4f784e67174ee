"""`halve.quantize`: one technique on one model, without the ladder. Reads model and data, and hands them on."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from halve.assembly import entries
from halve.assembly.staging import TOKENIZER, Staged, stage
from halve.chains import Lesson
from halve.core import Model, Payload, Progress, Recipe
from halve.core.progress import Silent
from halve.demo.training import cache_folder
from halve.errors import InvalidParameterError
from halve.measure.artifacts import adopt_files, new_folder
from halve.techniques.compression.quantization import Data, Manifest, Method, Order, write_artifact
from halve.workload import examples_from, read_examples, read_payloads, training_set

if TYPE_CHECKING:
    from torch import nn

BATCH = 32
"""Rows of a calibration batch."""


@dataclass(frozen=True, kw_only=True)
class QuantizedModel:
    """A model in integers, in a folder of its own.

    Args:
        model: What a stack can hold; file paths are relative to `folder`.
        folder: `model.onnx`, `manifest.json`, and `tokenizer.json` if it reads texts.
        manifest: Recipe, per-layer table, host and probe: what is in `manifest.json`.
    """

    model: Model
    folder: Path
    manifest: Manifest


def quantize(  # noqa: PLR0913 - a verb for users: every choice is a keyword of its own
    model: "str | Path | nn.Module",
    *,
    calibration: "str | Path | Sequence[Payload] | tuple[Sequence[Payload], Sequence[int]]",
    out: str | Path,
    bits: int = 8,
    activation_bits: int = 8,
    method: Method = "auto",
    qat_epochs: int = 0,
    learning_rate: float = 0.01,
    tokenizer: str | Path | None = None,
    max_tokens: int = 64,
    payload: str = "payload",
    label: str | None = None,
    error_budget: float | None = None,
    accept_slower: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Write a model in integers for this host, and say per layer what was done and why.

    Args:
        model: An ONNX file, `module:function` returning a torch module, or the module itself (evaluation mode).
        calibration: Inputs like the requests to come: a JSONL, CSV, Parquet or NPZ file, `module:function`, payloads,
            or (payloads, class indices). 100 to 500 are plenty, for training as many as there are.
        out: Folder to write; it must not exist yet.
        bits: Of weights, 2 to 8. Where 8-bit products saturate, 8 becomes 7.
        activation_bits: Of activations, 2 to 8; below 8 the values are carried by the 8-bit kernels.
        method: `auto` tries what fits the model; `static`, `dynamic` and `weight-only` insist.
        qat_epochs: Train with quantization in the loop for so many epochs; needs a torch model.
        learning_rate: Of that training.
        tokenizer: For texts: a Hugging Face `tokenizer.json`, or `module:function` returning its path.
        max_tokens: Longer texts are cut.
        payload, label: Columns of a calibration file; without a label, training follows the fp32 model's answers alone.
        error_budget: Largest relative RMSE of the logits against fp32; sensitive layers stay fp32 to keep it.
        accept_slower: Keep an artifact that is no faster than fp32 here.
        seed: Of everything that draws: same seed and data, same bytes.
        progress: Where bars go; silent by default.

    Raises:
        UserError: If model, data or numbers cannot be used; one sentence each.
    """
    order = Order(
        method=method,
        weight_bits=bits,
        activation_bits=activation_bits,
        qat_epochs=qat_epochs,
        learning_rate=learning_rate,
        error_budget=error_budget,
        accept_slower=accept_slower,
        seed=seed,
    )
    target = Path(out)
    if target.exists():
        raise InvalidParameterError("out", rule="a folder that does not exist yet", value=str(target))
    bars = progress or Silent()
    with entries.importable(Path.cwd()), tempfile.TemporaryDirectory(prefix="halve-") as scratch:
        payloads, labels = _calibration(calibration, payload=payload, label=label)
        reads_text = isinstance(payloads[0], str)
        if reads_text and tokenizer is None:
            raise InvalidParameterError("tokenizer", rule="given for texts", value=None)
        source = stage(model, Path(scratch), tokenizer=tokenizer if reads_text else None, max_tokens=max_tokens)
        with source.opened() as answerer, new_folder(target) as folder:
            starts = range(0, len(payloads), BATCH)
            batches = [answerer.inputs(payloads[start : start + BATCH]) for start in starts]
            answers = _answers(source, payloads, progress=bars) if qat_epochs else None
            manifest = write_artifact(
                order,
                folder,
                model=answerer.runtime_model,
                data=Data(batches=batches, labels=labels, answers=answers),
                step=lambda text: bars.task(text, total=1),
            )
            if reads_text:
                shutil.copyfile(Path(scratch) / TOKENIZER, folder / TOKENIZER)
    return QuantizedModel(model=_finished(target, source.model, manifest), folder=target, manifest=manifest)


def _answers(source: Staged, payloads: Sequence[Payload], *, progress: Progress) -> NDArray[np.float32]:
    """Return the fp32 model's answers out of the cache that every student reads too."""
    training = training_set(payloads)
    lesson = Lesson(
        teacher=source.model,
        load=source.load,
        training=training,
        caches=cache_folder() / "teachers",
        workspace=lambda _: source.folder,
        seed=0,
        progress=progress,
    )
    return lesson.answers().log_probabilities()


def _calibration(
    given: object, *, payload: str, label: str | None
) -> tuple[Sequence[Payload], NDArray[np.int64] | None]:
    """Return payloads, and class indices where there are any."""
    if isinstance(given, str) and ":" in given and not Path(given).exists():
        given = entries.call(given, field="calibration")
    if isinstance(given, str | Path):
        if label is None:
            return read_payloads(Path(given), payload=payload), None
        given = read_examples(Path(given), payload=payload, reference=label)
    elif not isinstance(given, tuple) and isinstance(given, Sequence | np.ndarray):
        if len(given) == 0:
            raise InvalidParameterError("calibration", rule="at least one input", value=0)
        if isinstance(given[0], str | np.ndarray):
            return list(given), None
    examples = examples_from(given)
    references = [example.reference for example in examples]
    if any(isinstance(reference, str) for reference in references):
        raise InvalidParameterError("label", rule="class indices", value=next(r for r in references if r is not None))
    return [example.payload for example in examples], np.array(references, np.int64)


def _finished(folder: Path, source: Model, manifest: Manifest) -> Model:
    return replace(
        source,
        name=f"{source.name}-{folder.name}",
        engine="onnxruntime",
        entry=None,
        files=adopt_files(folder, relative_to=folder),
        parent=source.name,
        recipe=Recipe(technique="quantization", parameters={"recipe": manifest.recipe, "seed": manifest.seed}),
        answers_singly=manifest.method == "dynamic",
    )

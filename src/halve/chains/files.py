"""What every made model has: the ONNX file that is served, its weights, and its record."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from halve.chains.lesson import Inputs
from halve.chains.record import FILE_NAME, ChainRecord, ChainStep, read_record
from halve.errors import MissingExtraError
from halve.techniques.compression import quantization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

MODEL_NAME, WEIGHTS_NAME = "model.onnx", "weights.safetensors"
SAMPLE_ROWS, CALIBRATION_ROWS, BATCH = 32, 256, 32

Seconds = Callable[[Mapping[str, "nn.Module"]], Mapping[str, float]]
"""Whole modules by name to the seconds of one call of each, as they would be served."""


def write_module(folder: Path, module: "nn.Module", inputs: Inputs, *, record: ChainRecord) -> None:
    """Write a trained module: `model.onnx`, checked against the module, `weights.safetensors` and `recipe.json`.

    Raises:
        ModelError: If torch cannot export it, or the file answers differently.
        MissingExtraError: If a library is not installed.
    """
    try:
        from safetensors.torch import save_model
    except ImportError:
        raise MissingExtraError("a weights file", package="safetensors", extra="torch") from None
    module.eval()
    quantization.export_onnx(module, first_rows(inputs, SAMPLE_ROWS), folder / MODEL_NAME)
    save_model(module, str(folder / WEIGHTS_NAME))
    record.write(folder)


def write_integers(folder: Path, *, source: Path, inputs: Inputs, step: "quantization.Timer | None" = None) -> None:
    """Write the model of another folder in integers for this host, and the record of its whole chain.

    Args:
        folder: Exists and is empty.
        source: A folder that `write_module` filled.
        inputs: Real inputs: the first CALIBRATION_ROWS set the ranges.
        step: Measures seconds; a recorded one makes the artifact repeatable.

    Raises:
        ModelError: If it cannot be quantized, or is wrong here.
    """
    order = quantization.Order(method="auto", accept_slower=True)
    data = quantization.Data(batches=batches_of(first_rows(inputs, CALIBRATION_ROWS)))
    manifest = quantization.write_artifact(order, folder, model=source / MODEL_NAME, data=data, timer=step)
    made = ChainStep(
        technique="quantization",
        parameters={"recipe": manifest.recipe, "weight_bits": manifest.weight_bits},
        figures={"relative_rmse": manifest.agreement.relative_rmse},
    )
    if (source / FILE_NAME).is_file():
        read_record(source).with_step(made).write(folder)


def seconds_as_served(inputs: Inputs, *, rows: int = 1) -> Seconds:
    """Return what measures whole modules: each as ONNX in onnxruntime, one thread, in turn round by round.

    A module that is measured again is exported once: it must not change in between.
    """
    known: list[tuple[nn.Module, bytes]] = []

    def exported(module: "nn.Module") -> bytes:
        for other, content in known:
            if other is module:
                return content
        with tempfile.TemporaryDirectory(prefix="halve-") as folder:
            path = Path(folder, MODEL_NAME)
            quantization.export_onnx(module.eval(), first_rows(inputs, SAMPLE_ROWS), path)
            known.append((module, path.read_bytes()))
        return known[-1][1]

    def seconds_of(modules: "Mapping[str, nn.Module]") -> Mapping[str, float]:
        contents = {name: exported(module) for name, module in modules.items()}
        return quantization.time_models(contents, first_rows(inputs, rows))

    return seconds_of


def first_rows(inputs: Inputs, rows: int) -> Inputs:
    """Return the first rows of every tensor."""
    return {name: array[:rows] for name, array in inputs.items()}


def batches_of(inputs: Inputs) -> "Sequence[Inputs]":
    """Return the inputs cut into batches."""
    rows = len(next(iter(inputs.values())))
    return [{name: array[at : at + BATCH] for name, array in inputs.items()} for at in range(0, rows, BATCH)]

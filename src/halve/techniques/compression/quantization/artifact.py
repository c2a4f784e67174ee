"""One model in, one folder out, whichever way it was ordered: `model.onnx`, and `manifest.json` with the reasons."""

import tempfile
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.crossover import Timer
from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.grids import is_convolutional
from halve.techniques.compression.quantization.hardware import gather_probe
from halve.techniques.compression.quantization.manifest import MODEL_NAME, Manifest, file_sha256
from halve.techniques.compression.quantization.order import Data, Order, Step
from halve.techniques.compression.quantization.ways import WAYS, Made, Work

VERSIONED = ("halve", "numpy", "onnx", "onnxruntime", "torch")
PACKED_BITS = 4


def write_artifact(
    order: Order, folder: Path, *, model: object, data: Data, step: Step = nullcontext, timer: Timer | None = None
) -> Manifest:
    """Write `model.onnx` and `manifest.json` into a folder.

    Args:
        order: What is asked for. 8 bits become 7 where 8-bit products saturate.
        folder: Exists; other files in it stay.
        model: The path of an fp32 ONNX file, or a torch module in evaluation mode.
        data: Calibration inputs; labels only matter for training.
        step: Opens each step of the work.
        timer: Measures seconds; a recorded one makes the artifact repeatable to the byte.

    Raises:
        InvalidParameterError: If the data cannot be used, or training is asked of a file.
        ModelError: If the model cannot be quantized, or the result is wrong or slower here.
        MissingExtraError: If a library is not installed.
    """
    if not data.batches:
        raise InvalidParameterError("calibration", rule="at least one input", value=0)
    if order.qat_epochs and isinstance(model, Path):
        raise InvalidParameterError(
            "qat_epochs", rule="0 for an ONNX file: training needs the module", value=model.name
        )
    with tempfile.TemporaryDirectory(prefix="halve-") as scratch:
        fp32 = model if isinstance(model, Path) else Path(scratch) / "model.onnx"
        if not isinstance(model, Path):
            with step("exporting fp32"):
                export_onnx(model, data.batches[0], fp32)
        probe = gather_probe()
        bits = probe.weight_bits.bits if order.weight_bits == 8 else order.weight_bits
        work = Work(
            order=order, bits=bits, module=model, fp32=fp32, graph=Graph.load(fp32), data=data, probe=probe,
            step=step, timer=timer,
        )  # fmt: skip
        made = WAYS[_way(work)](work)
        (folder / MODEL_NAME).write_bytes(made.content)
        manifest = _manifest(work, made, folder / MODEL_NAME)
    manifest.write(folder)
    return manifest


def _way(work: Work) -> str:
    if work.order.qat_epochs:
        return "trained"
    if work.order.method != "auto":
        return work.order.method
    return "weight-only" if work.order.weight_bits == PACKED_BITS and not is_convolutional(work.graph) else "static"


def _manifest(work: Work, made: Made, path: Path) -> Manifest:
    order = work.order
    return Manifest(
        model_sha256=file_sha256(path),
        source_sha256=file_sha256(work.fp32),
        calibration_sha256=work.data.sha256,
        seed=order.seed,
        method=order.method,
        recipe=made.recipe,
        weight_bits=order.weight_bits,
        activation_bits=None if all(layer.activation_bits is None for layer in made.layers) else order.activation_bits,
        agreement=made.agreement,
        seconds=made.seconds,
        fp32_seconds=made.fp32_seconds,
        size_bytes=len(made.content),
        fp32_size_bytes=work.fp32.stat().st_size,
        layers=made.layers,
        probe=work.probe,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

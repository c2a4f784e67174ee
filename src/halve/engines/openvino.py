"""Runs ONNX files with OpenVINO on the CPU: a second runtime for the files that the onnxruntime engine runs.

Numbers are those of the file: float32 stays float32 (by default OpenVINO would take bfloat16 where the processor has
AMX), and activations are quantized only where the file says so (by default it may quantize them to fit weights of
4 or 8 bits).

Telemetry. `import openvino` sends an event to Google Analytics and writes a client id and counters below ~/intel,
without asking, through its dependency openvino-telemetry (seen with openvino 2026.4.1; 2025.0 has the same code).
That package is therefore blocked in this process before openvino is imported, and openvino then uses its own stub
that does nothing. With it blocked, a trace of the system calls of import, compilation and inference showed no socket
and no file written. If your own code imported openvino before this engine was used, its import event is out already;
`opt_in_out --opt_out` stops that for a user account.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from halve.core import Answerer, Model
from halve.engines.files import only_file, verified_files
from halve.engines.onnxruntime import OnnxRuntimeAnswerer
from halve.engines.preprocess import preparation
from halve.errors import InvalidParameterError, MissingExtraError, ModelError


@final
class OpenVinoEngine:
    """Loads what `OnnxRuntimeEngine` loads: one `.onnx` file whose output is logits, float32 (batch, classes)."""

    name = "openvino"

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Load the model; see `halve.core.Engine`.

        Args:
            model: What to run.
            threads: Threads of one call, at least 1; not pinned to cores, so that replicas can share them.
            folder: What the model's file paths are relative to.
        """
        if threads < 1:
            raise InvalidParameterError("threads", rule="at least 1", value=threads)
        files = verified_files(model, folder=folder)
        path = only_file(model, files, suffix=".onnx")
        session = OpenVinoSession(compile_file(path, threads=threads, owner=model.name))
        return OnnxRuntimeAnswerer(model, session=session, path=path, prepare=preparation(model, files))


def compile_file(path: Path, *, threads: int, owner: str) -> Any:
    """Return an `openvino.CompiledModel` on the CPU, set up as stacks run it.

    Raises:
        ModelError: If OpenVINO cannot load the file.
        MissingExtraError: If openvino is not installed.
    """
    openvino = import_without_telemetry()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    try:
        return openvino.Core().compile_model(str(path), "CPU", options)
    except Exception as error:  # OpenVINO raises RuntimeError for whatever goes wrong.
        raise ModelError(f"{path.name} of model {owner!r} cannot be loaded: {' '.join(str(error).split())}") from error


def import_without_telemetry() -> Any:
    """Return the module `openvino`, imported so that it finds no openvino-telemetry.

    Raises:
        MissingExtraError: If openvino is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's mark for "do not import".
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("the openvino engine", package="openvino", extra="openvino") from None
    return openvino


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output; an axis is None where its length is open, and there are none where their number is."""

    name: str
    shape: tuple[int | None, ...]

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError if a tensor of this shape does not fit.

        Where one axis is open, OpenVINO itself compares no other, and computes with whatever it is given.
        """
        if not self.shape:
            return
        if len(shape) != len(self.shape) or any(b not in (None, a) for a, b in zip(shape, self.shape, strict=True)):
            expected = ", ".join("any" if axis is None else str(axis) for axis in self.shape)
            raise ValueError(f"{self.name} must have shape ({expected}). Got {shape}")


@final
class OpenVinoSession:
    """A compiled model with the three methods of an `onnxruntime.InferenceSession` that an answerer calls."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [_port(port) for port in compiled.inputs]
        self._outputs = [_port(port) for port in compiled.outputs]

    def get_inputs(self) -> list[Port]:
        """Return the inputs in the file's order."""
        return self._inputs

    def get_outputs(self) -> list[Port]:
        """Return the outputs in the file's order."""
        return self._outputs

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs of these names, in arrays of their own.

        Raises:
            ValueError: If a tensor's shape is not the model's.
            RuntimeError: If OpenVINO fails.
        """
        for port in self._inputs:
            port.check(feeds[port.name].shape)
        results = self._request.infer(dict(feeds))
        return [results[name] for name in names]


def _port(port: Any) -> Port:
    # One tensor may carry several names; `logits` is the one an answerer looks for.
    names = port.get_names()
    name = "logits" if "logits" in names else port.get_any_name()
    axes = port.get_partial_shape()
    if axes.rank.is_dynamic:
        return Port(name=name, shape=())
    return Port(name=name, shape=tuple(axis.get_length() if axis.is_static else None for axis in axes))

"""The deployed runtime, ONNX Runtime on the CPU, as one function: what a file really answers on this host."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError


def open_session(model: Path | bytes) -> Any:
    """Return a single-threaded `onnxruntime.InferenceSession` on the CPU.

    Raises:
        ModelError: If onnxruntime cannot load the model.
        MissingExtraError: If onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("quantization", package="onnxruntime", extra="onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base class.
        name = "the model" if isinstance(model, bytes) else model.name
        raise ModelError(f"onnxruntime cannot load {name}: {' '.join(str(error).split())}") from error


def run_logits(model: Path | bytes, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
    """Return the logits of every batch, one below the other, float32 (rows, classes).

    The logits are the output named `logits`, or the only one.

    Raises:
        InvalidParameterError: If there is no input.
        ModelError: If the model cannot be loaded or run, or no output is the logits.
    """
    if not inputs:
        raise InvalidParameterError("inputs", rule="at least one batch", value=0)
    session = open_session(model)
    names = [node.name for node in session.get_outputs()]
    if len(names) != 1 and "logits" not in names:
        raise ModelError(f"outputs must be a single one, or hold one named 'logits'. Got {names}.")
    output = names[0] if len(names) == 1 else "logits"
    try:
        batches = [session.run([output], dict(batch))[0] for batch in inputs]
    except Exception as error:
        raise ModelError(f"onnxruntime cannot run the model: {' '.join(str(error).split())}") from error
    return np.concatenate(batches).astype(np.float32, copy=False)

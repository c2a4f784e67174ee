"""Runs ONNX files with ONNX Runtime on the CPU: the engine that stacks are deployed with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from halve.core import Answerer, Model, Payload, Prediction
from halve.engines.answering import answer_batch
from halve.engines.files import only_file, verified_files
from halve.engines.preprocess import Prepare, preparation
from halve.errors import InvalidParameterError, MissingExtraError, ModelError

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@final
class OnnxRuntimeEngine:
    """Loads models with exactly one `.onnx` file, whose output is logits, float32 (batch, classes).

    The model has one output, or one named `logits`. For `tensor` payloads it has one input; for `wordpiece`
    its inputs are among TEXT_INPUTS (`token_type_ids` is fed zeros).
    """

    name = "onnxruntime"

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Load the model; see `halve.core.Engine`.

        Args:
            model: What to run.
            threads: Threads of one call, at least 1. They sleep between calls instead of spinning, so that
                replicas beside each other do not take each other's processor time.
            folder: What the model's file paths are relative to.
        """
        if threads < 1:
            raise InvalidParameterError("threads", rule="at least 1", value=threads)
        files = verified_files(model, folder=folder)
        path = only_file(model, files, suffix=".onnx")
        session = open_session(path, threads=threads, owner=model.name)
        return OnnxRuntimeAnswerer(model, session=session, path=path, prepare=preparation(model, files))


def open_session(path: Path, *, threads: int, owner: str) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU, set up as stacks run it.

    Raises:
        ModelError: If onnxruntime cannot load the file.
        MissingExtraError: If onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("the onnxruntime engine", package="onnxruntime", extra="onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # Every failure is raised as well: a log line beside it says nothing new.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base class.
        raise ModelError(f"{path.name} of model {owner!r} cannot be loaded: {' '.join(str(error).split())}") from error


@final
class OnnxRuntimeAnswerer:
    """A session and what its inputs and outputs are called."""

    def __init__(self, model: Model, *, session: Any, path: Path, prepare: Prepare) -> None:
        self._name, self._path, self._prepare = model.name, path, prepare
        self._session = session
        self._input_names = [node.name for node in session.get_inputs()]
        self._output_name = _logits_name(model.name, [node.name for node in session.get_outputs()])
        self._is_text = model.preprocess.kind == "wordpiece"
        self._check_inputs()
        self._singly = self._fixed_batch() is not None

    def inputs(self, payloads: Sequence[Payload]) -> dict[str, NDArray[Any]]:
        """Return the model's named input tensors, batch axis first, in the model's order."""
        prepared = self._prepare(payloads)
        if not self._is_text:
            return {self._input_names[0]: prepared["input"]}
        if "token_type_ids" in self._input_names:
            prepared["token_type_ids"] = np.zeros_like(prepared["input_ids"])
        return {name: prepared[name] for name in self._input_names}

    @property
    def runtime_model(self) -> Path:
        """The ONNX file."""
        return self._path

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return one answer per payload; see `halve.core.Answerer`."""
        return answer_batch(self._name, payloads, logits_of=self._logits)

    def close(self) -> None:
        """Give back the session's memory and threads."""
        self._session = None

    def _logits(self, payloads: Sequence[Payload]) -> NDArray[np.float32]:
        if self._session is None:
            raise ModelError(f"model {self._name!r} is closed")
        groups = [[payload] for payload in payloads] if self._singly else [payloads]
        outputs = [self._session.run([self._output_name], self.inputs(group))[0] for group in groups]
        return np.concatenate(outputs).astype(np.float32, copy=False)

    def _check_inputs(self) -> None:
        names = self._input_names
        if self._is_text and not set(names) <= set(TEXT_INPUTS):
            raise ModelError(f"inputs of model {self._name!r} must be among {', '.join(TEXT_INPUTS)}. Got {names}.")
        if not self._is_text and len(names) != 1:
            raise ModelError(f"inputs of model {self._name!r} must be exactly one for tensor payloads. Got {names}.")

    def _fixed_batch(self) -> int | None:
        """Return the batch size that the graph fixes, if it does: only 1 can be served, one input at a time."""
        sizes = [node.shape[0] for node in self._session.get_inputs() if node.shape]
        fixed = next((size for size in sizes if isinstance(size, int)), None)
        if fixed not in (None, 1):
            raise ModelError(f"batch axis of model {self._name!r} must be dynamic or 1. Got {fixed}.")
        return fixed


def _logits_name(owner: str, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if "logits" in names:
        return "logits"
    raise ModelError(f"outputs of model {owner!r} must be a single one, or hold one named 'logits'. Got {names}.")

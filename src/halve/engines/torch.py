"""Runs PyTorch modules eagerly in fp32 on the CPU: what many services do today, and the usual baseline."""

import importlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from halve.core import Answerer, Model, Payload, Prediction
from halve.engines.answering import answer_batch
from halve.engines.files import only_file, verified_files
from halve.engines.preprocess import Prepare, preparation
from halve.errors import InvalidParameterError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from torch import nn


@final
class TorchEngine:
    """Builds the module that `model.entry` names, and loads its `.safetensors` file if the model has one."""

    name = "torch"

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Load the model; see `halve.core.Engine`.

        The directory that holds the entry's module must be on `sys.path`.
        torch has one thread count per process, so it is set here and again before every answer.

        Args:
            model: What to run; `entry` names a function without arguments that returns an `nn.Module`.
            threads: Threads of one call, at least 1.
            folder: What the model's file paths are relative to.
        """
        if threads < 1:
            raise InvalidParameterError("threads", rule="at least 1", value=threads)
        _require_torch()
        files = verified_files(model, folder=folder)
        prepare = preparation(model, files)
        module = build_module(model)
        if any(name.endswith(".safetensors") for name in files):
            load_weights(module, only_file(model, files, suffix=".safetensors"))
        module.eval().requires_grad_(False)
        return TorchAnswerer(model, module=module, prepare=prepare, threads=threads)


def answerer_of(module: object, model: Model, *, folder: Path) -> Answerer:
    """Return a module that is in memory already, on one thread, with the model's preprocessing.

    Raises:
        InvalidParameterError: If it is no torch module, or is in training mode.
    """
    _require_torch()
    from torch import nn

    if not isinstance(module, nn.Module) or module.training:
        got = "one in training mode" if isinstance(module, nn.Module) else type(module).__name__
        raise InvalidParameterError("model", rule="a torch module in evaluation mode", value=got)
    prepare = preparation(model, verified_files(model, folder=folder))
    return TorchAnswerer(model, module=module, prepare=prepare, threads=1)


@final
class TorchAnswerer:
    """A module in evaluation mode."""

    def __init__(self, model: Model, *, module: "nn.Module", prepare: Prepare, threads: int) -> None:
        self._name, self._prepare, self._threads = model.name, prepare, threads
        self._module: nn.Module | None = module
        self._use_threads()

    def inputs(self, payloads: Sequence[Payload]) -> dict[str, NDArray[Any]]:
        """Return the model's input tensors in the order that `forward` takes them, batch axis first."""
        return self._prepare(payloads)

    @property
    def runtime_model(self) -> "nn.Module":
        """The module."""
        if self._module is None:
            raise ModelError(f"model {self._name!r} is closed")
        return self._module

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return one answer per payload; see `halve.core.Answerer`."""
        return answer_batch(self._name, payloads, logits_of=self._logits)

    def close(self) -> None:
        """Let go of the module."""
        self._module = None

    def _logits(self, payloads: Sequence[Payload]) -> NDArray[np.float32]:
        import torch

        self._use_threads()
        tensors = [torch.from_numpy(array) for array in self.inputs(payloads).values()]
        with torch.inference_mode():
            logits = self.runtime_model(*tensors)
        if not isinstance(logits, torch.Tensor):
            raise TypeError(f"forward must return a tensor of logits. Got {type(logits).__name__}")
        return np.asarray(logits.float().numpy(), dtype=np.float32)

    def _use_threads(self) -> None:
        import torch

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


def build_module(model: Model) -> "nn.Module":
    """Return the module that `model.entry` builds.

    Raises:
        ModelError: If the entry cannot be imported, raises, or returns something else.
    """
    _require_torch()
    from torch import nn

    function = _entry_function(model)
    try:
        module = function()
    except Exception as error:  # It is the user's own code: whatever it raises is theirs to read.
        raise ModelError(f"entry {model.entry!r} of model {model.name!r} raised {error!r}.") from error
    if not isinstance(module, nn.Module):
        got = type(module).__name__
        raise ModelError(f"entry {model.entry!r} of model {model.name!r} must return a torch.nn.Module. Got {got}.")
    return module


def load_weights(module: "nn.Module", path: Path) -> None:
    """Load a safetensors file into a module; names and shapes must match exactly, tied weights aside.

    Raises:
        ModelError: If they do not, or the file is damaged.
    """
    safetensors = _require_safetensors()
    try:
        safetensors.load_model(module, path, strict=True)
    except Exception as error:  # SafetensorError, RuntimeError and KeyError, by what is wrong.
        raise ModelError(f"{path.name} does not fit the module: {' '.join(str(error).split())}") from error


def save_weights(module: "nn.Module", path: Path) -> None:
    """Write a module's parameters and buffers as safetensors; tied ones are written once.

    Equal weights give equal bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    safetensors = _require_safetensors()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        safetensors.save_model(module, str(path))
    except Exception as error:  # SafetensorError hides the system's error in its text.
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code.group(1)), os.strerror(int(code.group(1))), str(path)) from error


def _entry_function(model: Model) -> Callable[[], object]:
    module_name, _, function_name = (model.entry or "").partition(":")
    if not module_name or not function_name:
        raise ModelError(f"entry of model {model.name!r} must be 'module:function'. Got {model.entry!r}.")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # Importing runs the user's own code.
        raise ModelError(f"entry {model.entry!r} of model {model.name!r} cannot be imported: {error!r}.") from error
    if not callable(function):
        raise ModelError(f"entry {model.entry!r} of model {model.name!r} must be a function. Got {function!r}.")
    return function  # type: ignore[no-any-return]


def _require_torch() -> None:
    try:
        importlib.import_module("torch")
    except ImportError:
        raise MissingExtraError("the torch engine", package="torch", extra="torch") from None


def _require_safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError:
        raise MissingExtraError("a weights file", package="safetensors", extra="torch") from None

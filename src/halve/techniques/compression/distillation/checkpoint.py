"""The state of a training run in one file, so that a run that was killed goes on as if nothing had happened.

One safetensors file holds all tensors; what is no tensor stands as JSON in its head. One file, one rename: there is
never a half of a state. It is named by the hash of what the run depends on, so that runs can share a folder and
another run's state is never taken for one's own.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation.files import require_safetensors, write_whole

if TYPE_CHECKING:
    import torch

_DOCUMENT = "document"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where and how often the state of a run is kept.

    Args:
        folder: Of the files.
        least_seconds: An epoch's end is kept if so many seconds have passed since the last time, >= 0.
        most_seconds: Within an epoch the state is kept after so many seconds, >= least_seconds.
    """

    folder: Path
    least_seconds: float = 5.0
    most_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.least_seconds <= self.most_seconds:
            seconds = (self.least_seconds, self.most_seconds)
            raise InvalidParameterError("least_seconds", rule="in [0, most_seconds]", value=seconds)


@dataclass(kw_only=True)
class State:
    """What is kept: tensors by name, and a document."""

    tensors: "dict[str, torch.Tensor]"
    document: dict[str, Any]

    def part(self, prefix: str) -> "dict[str, torch.Tensor]":
        """Return the tensors whose names begin with `prefix` and a dot, without it."""
        start = f"{prefix}."
        return {name[len(start) :]: tensor for name, tensor in self.tensors.items() if name.startswith(start)}


class Keeper:
    """Keeps one run's state.

    Args:
        checkpoint: Where and how often; None keeps nothing.
        parts: What the run depends on.
    """

    def __init__(self, checkpoint: Checkpoint | None, parts: Iterable[object]) -> None:
        self._checkpoint = checkpoint
        if checkpoint is not None:
            require_safetensors("checkpoints")
            self.path = checkpoint.folder / f"student-{identity(parts)}.safetensors"
        self._last = time.monotonic()

    def read(self) -> State | None:
        """Return the state, or None if there is none or it is damaged."""
        if self._checkpoint is None or not self.path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
                document = json.loads((file.metadata() or {})[_DOCUMENT])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return State(tensors=tensors, document=document)

    def is_due(self, *, at_end_of_epoch: bool) -> bool:
        """Return whether enough time has passed to keep the state again."""
        if self._checkpoint is None:
            return False
        least = self._checkpoint.least_seconds if at_end_of_epoch else self._checkpoint.most_seconds
        return time.monotonic() - self._last >= least

    def write(self, state: State) -> None:
        """Keep the state, whole or not at all."""
        if self._checkpoint is None:
            return
        from safetensors.torch import save_file

        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.tensors.items()}
        metadata = {_DOCUMENT: json.dumps(state.document)}
        write_whole(self.path, lambda partial: save_file(tensors, partial, metadata=metadata))
        self._last = time.monotonic()


def identity(parts: Iterable[object]) -> str:
    """Return 16 hexadecimal digits that change with any part: text, arrays, tensors, and mappings of them."""
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()[:16]


def array_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the hash of named arrays: names, types, shapes and bytes, in their order."""
    digest = hashlib.sha256()
    _feed(digest, arrays)
    return digest.hexdigest()


def _feed(digest: Any, part: object) -> None:
    if isinstance(part, Mapping):
        for name, value in part.items():
            digest.update(f"{name}\n".encode())
            _feed(digest, value)
        return
    if hasattr(part, "detach"):
        part = part.detach().numpy()
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype} {part.shape}\n".encode())
        digest.update(np.ascontiguousarray(part).data)
    else:
        digest.update(f"{part!r}\n".encode())

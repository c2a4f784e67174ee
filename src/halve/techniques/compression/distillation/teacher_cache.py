"""What a teacher answered, asked once and kept: every student, every setting and QAT read the same files.

A row holds the likeliest classes as the smallest unsigned integers with their log-probabilities in float16, and the
rest as one bucket (see `targets`). Nothing is renormalised: the listed classes keep the mass that they have. How many
classes are listed follows from their number and the budget, 300 bytes per example if nothing else is asked for.

The folder is named by the hash of all that decides what is in it. Rows are stored in numbered shards, each a
safetensors file that is there whole or not at all, with the hash of its content. After a kill -9 only the shards that
are missing, cut short or damaged are asked for again.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation.files import read_json, require_safetensors, write_json, write_whole
from halve.techniques.compression.distillation.targets import (
    FloatArray,
    Targets,
    compressed,
    largest_k,
)

SCHEMA = "halve.teacher-cache/1"
FILE_NAME = "cache.json"
MASS_TOLERANCE = 1e-2
"""Of a row's probabilities, which must sum to 1."""

_HEADER_BYTES = 640
"""More than the head of a shard takes."""

_DOCUMENT_BYTES = 512
"""More than `cache.json` takes, less names of any length."""

_BLOCK_NUMBERS = 2**24
"""Log-probabilities that are held at once."""

Answer = Callable[[int, int], NDArray[Any]]
"""Takes start and stop; returns log-probabilities of rows start:stop at T = 1, (stop - start, classes)."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What decides what is in the folder."""

    teacher: str
    inputs_sha256: str
    rows: int
    shard_rows: int
    bytes_per_example: int

    def __post_init__(self) -> None:
        for name in ("rows", "shard_rows"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(name, rule="at least 1", value=getattr(self, name))
        if self.bytes_per_example < 32:
            raise InvalidParameterError("bytes_per_example", rule="at least 32", value=self.bytes_per_example)

    @property
    def key(self) -> str:
        parts = (SCHEMA, self.teacher, self.inputs_sha256, self.rows, self.shard_rows, self.bytes_per_example)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def spans(self) -> list[tuple[int, int]]:
        return [(start, min(self.rows, start + self.shard_rows)) for start in range(0, self.rows, self.shard_rows)]

    def k(self, classes: int) -> int:
        """Return how many classes are listed, so that files with their heads stay within the budget."""
        overhead = (_DOCUMENT_BYTES + len(self.teacher) + _HEADER_BYTES * len(self.spans)) / self.rows
        return largest_k(classes, row_budget=self.bytes_per_example - overhead)


class TeacherCache:
    """A teacher's answers on disk; made by `TeacherCache.open`."""

    def __init__(self, folder: Path, *, classes: int, k: int, shards: list[tuple[Targets, float]]) -> None:
        self.folder = folder
        self.classes, self.k = classes, k
        self.seconds = sum(seconds for _, seconds in shards)
        self._targets = _joined([targets for targets, _ in shards])

    @classmethod
    def open(  # noqa: PLR0913 - a verb for users: every choice is a keyword of its own
        cls,
        folder: Path,
        *,
        teacher: str,
        inputs_sha256: str,
        rows: int,
        classes: int | None,
        answer: Answer,
        shard_rows: int = 2048,
        bytes_per_example: int = 300,
        progress: Callable[[int], None] | None = None,
    ) -> "TeacherCache":
        """Return the cache, asking the teacher for what is not there yet.

        Args:
            folder: Where caches are; this one gets a folder of its own below, named by its hash.
            teacher: Fingerprint of the teacher: another teacher must have another.
            inputs_sha256: Hash of the inputs, in their order.
            rows: Number of inputs, >= 1.
            classes: Number of classes; None to learn it from the first answer.
            answer: Asks the teacher.
            shard_rows: Rows per file, >= 1: what a kill can cost.
            bytes_per_example: Budget, >= 32; kept for some hundred rows and more, whose share of file heads is small.
            progress: Called with the number of rows that are done, after each shard.

        Raises:
            InvalidParameterError: If a number breaks its rule.
            ModelError: If an answer has the wrong shape, holds NaN, or does not sum to 1.
            MissingExtraError: If safetensors is not installed.
            StorageError: If a file cannot be written.
        """
        require_safetensors("the teacher cache")
        plan = _Plan(
            teacher=teacher,
            inputs_sha256=inputs_sha256,
            rows=rows,
            shard_rows=shard_rows,
            bytes_per_example=bytes_per_example,
        )
        home = folder / plan.key
        classes = _classes(home, classes, answer)
        k = plan.k(classes)
        shards: list[tuple[Targets, float]] = []
        for number, (start, stop) in enumerate(plan.spans):
            path = home / f"shard-{number:05d}.safetensors"
            shard = _read_shard(path, rows=stop - start, classes=classes, k=k)
            if shard is None:
                begun = time.perf_counter()
                targets = _asked(answer, start, stop, classes=classes, k=k)
                shard = (targets, time.perf_counter() - begun)
                _write_shard(path, *shard)
            shards.append(shard)
            if progress is not None:
                progress(stop)
        cache = cls(home, classes=classes, k=k, shards=shards)
        cache._write_document(plan)
        return cache

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(self._targets)

    @property
    def bytes_per_example(self) -> float:
        """Size of all files in the folder over the number of examples, measured."""
        return sum(path.stat().st_size for path in self.folder.iterdir()) / self.rows

    def targets(self, rows: NDArray[Any] | slice = slice(None)) -> Targets:
        """Return the answers to some rows, by their numbers."""
        return self._targets.take(rows)

    def log_probabilities(self) -> FloatArray:
        """Return log-probabilities at T = 1, float32 (rows, classes); see `Targets.dense_log_probabilities`."""
        return self._targets.dense_log_probabilities()

    def _write_document(self, plan: _Plan) -> None:
        document = {
            "schema": SCHEMA,
            "teacher": plan.teacher,
            "inputs_sha256": plan.inputs_sha256,
            "rows": self.rows,
            "classes": self.classes,
            "k": self.k,
            "shard_rows": plan.shard_rows,
            "seconds": round(self.seconds, 3),
        }
        path = self.folder / FILE_NAME
        if read_json(path) != document:
            write_json(path, document)


def _classes(home: Path, given: int | None, answer: Answer) -> int:
    classes = given
    if classes is None:
        classes = (read_json(home / FILE_NAME) or {}).get("classes")
    if classes is None:
        classes = int(np.asarray(answer(0, 1)).shape[-1])
    if classes < 2:
        raise InvalidParameterError("classes", rule="at least 2", value=classes)
    return classes


def _asked(answer: Answer, start: int, stop: int, *, classes: int, k: int) -> Targets:
    step = max(1, _BLOCK_NUMBERS // classes)
    parts = []
    for first in range(start, stop, step):
        last = min(stop, first + step)
        answers = np.asarray(answer(first, last))
        if answers.shape != (last - first, classes):
            raise ModelError(f"the teacher must answer with shape {(last - first, classes)}. Got {answers.shape}.")
        mass = np.exp(answers.astype(np.float32)).sum(axis=1, dtype=np.float64)
        if not (wrong := np.abs(mass - 1)).max() <= MASS_TOLERANCE:
            row = int(np.nanargmax(np.where(np.isnan(wrong), np.inf, wrong)))
            raise ModelError(f"probabilities of the teacher must sum to 1. Got {mass[row]:.6g} in row {first + row}.")
        parts.append(compressed(answers, k=k))
    return _joined(parts)


def _joined(parts: list[Targets]) -> Targets:
    first = parts[0]
    return Targets(
        classes=first.classes,
        indices=None if first.indices is None else np.concatenate([part.indices for part in parts]),
        log_probabilities=np.concatenate([part.log_probabilities for part in parts]),
        tail=None if first.tail is None else np.concatenate([part.tail for part in parts]),
    )


def _arrays(targets: Targets) -> dict[str, NDArray[Any]]:
    arrays = {"indices": targets.indices, "log_probabilities": targets.log_probabilities, "tail": targets.tail}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}


def _write_shard(path: Path, targets: Targets, seconds: float) -> None:
    from safetensors.numpy import save_file

    arrays = _arrays(targets)
    metadata = {"seconds": f"{seconds:.6f}", "sha256": _digest(arrays)}
    write_whole(path, lambda partial: save_file(arrays, partial, metadata=metadata))


def _read_shard(path: Path, *, rows: int, classes: int, k: int) -> tuple[Targets, float] | None:
    """Return a shard and the seconds it took, or None if it is not there, cut short, or not what was asked for."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    if metadata.get("sha256") != _digest(arrays) or "log_probabilities" not in arrays:
        return None
    targets = Targets(
        classes=classes,
        indices=arrays.get("indices"),
        log_probabilities=arrays["log_probabilities"],
        tail=arrays.get("tail"),
    )
    if targets.log_probabilities.shape != (rows, min(k, classes)):
        return None
    return targets, float(metadata["seconds"])


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode() + arrays[name].tobytes())
    return digest.hexdigest()

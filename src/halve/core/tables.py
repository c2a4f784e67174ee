"""The two tables that everything is composed from: `Outcomes` per example, `ServiceCurve` per batch size."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from halve.core.workload import FloatArray, Payload
from halve.errors import InvalidParameterError, RunFolderError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model answers to a batch.

    Args:
        answers: (batch,): int64 class indices, or objects (str) for text.
        probabilities: float32 (batch, classes), rows sum to 1; None if the model gives none.
    """

    answers: NDArray[np.int64] | NDArray[np.object_]
    probabilities: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True, kw_only=True)
class CachedAnswer:
    """One stored answer: what a cache returns instead of asking a model."""

    answer: int | str
    probabilities: tuple[float, ...] | None = None
    stage: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One model over one split, one row per example, in the order of the split.

    Args:
        model: Name of the model.
        answers: int64 (n,) or objects (n,).
        scores: float64 (n,), each in [0, 1], against the reference.
        compute_seconds: float64 (n,): seconds of compute per example, as profiled (not as served).
        probabilities: float32 (n, classes), or None.
    """

    model: str
    answers: NDArray[np.int64] | NDArray[np.object_]
    scores: FloatArray
    compute_seconds: FloatArray
    probabilities: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.answers)
        if len(self.scores) != n or len(self.compute_seconds) != n:
            lengths = (n, len(self.scores), len(self.compute_seconds))
            raise InvalidParameterError("answers, scores and compute_seconds", rule="equally long", value=lengths)
        if np.any(~(self.scores >= 0) | ~(self.scores <= 1)):
            raise InvalidParameterError(f"scores of {self.model}", rule="in [0, 1]", value="some that are not")

    @property
    def quality(self) -> float:
        """Mean score."""
        return float(np.mean(self.scores))

    def save(self, path: Path) -> None:
        """Write the table as Parquet, atomically."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from halve.core.documents import replace_file

        columns: dict[str, object] = {
            "answer": self.answers.tolist(),
            "score": self.scores,
            "compute_seconds": self.compute_seconds,
        }
        if self.probabilities is not None:
            width = self.probabilities.shape[1]
            flat = pa.array(np.ascontiguousarray(self.probabilities, dtype=np.float32).ravel())
            columns["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, width)
        table = pa.table(columns).replace_schema_metadata({"schema": "halve.outcomes/1", "model": self.model})
        with replace_file(path) as partial:
            pq.write_table(table, partial, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> "Outcomes":
        """Read what `save` wrote.

        Raises:
            RunFolderError: If the file is damaged or is another table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise RunFolderError(f"{path} is not a readable outcomes table: {error}") from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"schema") != b"halve.outcomes/1":
            raise RunFolderError(f"{path} must be a table of schema halve.outcomes/1. Got {metadata.get(b'schema')!r}.")
        probabilities = None
        if "probabilities" in table.column_names:
            column = table["probabilities"].combine_chunks()
            probabilities = np.asarray(column.flatten()).reshape(len(table), -1)
        answers = np.asarray(table["answer"].to_pylist())
        return cls(
            model=metadata[b"model"].decode(),
            answers=answers if answers.dtype == np.int64 else answers.astype(object),
            scores=np.asarray(table["score"]),
            compute_seconds=np.asarray(table["compute_seconds"]),
            probabilities=probabilities,
        )


@dataclass(frozen=True, kw_only=True)
class ServiceCurve:
    """How long a model takes for a batch, on this host, with this many threads.

    Args:
        model: Name of the model.
        threads: Threads the engine was given.
        batch_sizes: Sizes measured, rising, from 1.
        samples_seconds: For each size, the wall seconds of each measured repeat.
        peak_memory_bytes: Resident bytes that loading and running the model added.
    """

    model: str
    threads: int
    batch_sizes: tuple[int, ...]
    samples_seconds: tuple[tuple[float, ...], ...]
    peak_memory_bytes: int

    def __post_init__(self) -> None:
        sizes = self.batch_sizes
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise InvalidParameterError("batch_sizes", rule="rising from 1", value=sizes)
        if len(self.samples_seconds) != len(sizes) or not all(self.samples_seconds):
            raise InvalidParameterError(
                "samples_seconds", rule="at least one per batch size", value=self.samples_seconds
            )

    @property
    def max_batch_size(self) -> int:
        """The largest batch that was measured; nothing is extrapolated beyond it."""
        return self.batch_sizes[-1]

    @property
    def median_seconds(self) -> FloatArray:
        """Median seconds for each measured size, made non-decreasing in the size."""
        medians = np.array([np.median(samples) for samples in self.samples_seconds])
        return np.maximum.accumulate(medians)

    def seconds_by_batch(self) -> FloatArray:
        """Return seconds for every batch size 1..max, linear between the measured ones; index 0 is size 1."""
        every = np.arange(1, self.max_batch_size + 1)
        return np.interp(every, self.batch_sizes, self.median_seconds)

    def noise_ratios(self) -> FloatArray:
        """Return each sample over its size's median, sorted: how uneven service times are on this host."""
        ratios = [np.asarray(samples) / np.median(samples) for samples in self.samples_seconds]
        return np.sort(np.concatenate(ratios))

    def save(self, path: Path) -> None:
        """Write the curve as JSON, atomically."""
        from halve.core.documents import dumps, replace_file

        with replace_file(path) as partial:
            partial.write_text(dumps(self) + "\n")

    @classmethod
    def load(cls, path: Path) -> "ServiceCurve":
        """Read what `save` wrote; RunFolderError if it is damaged."""
        from halve.core.documents import parse

        try:
            return parse(cls, json.loads(path.read_text()), source=str(path))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} is not a readable service curve: {error}") from error


def stack_payloads(payloads: Sequence[Payload]) -> NDArray[np.float32]:
    """Return tensors of one shape as one batch, float32 (batch, ...).

    Raises:
        InvalidParameterError: If a payload is text, or shapes differ.
    """
    if any(isinstance(payload, str) for payload in payloads):
        raise InvalidParameterError("payload", rule="a tensor for this model", value="a text")
    arrays = [np.asarray(payload, dtype=np.float32) for payload in payloads]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise InvalidParameterError("payload shapes", rule="equal within a batch", value=sorted(shapes))
    return np.stack(arrays)

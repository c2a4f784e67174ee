"""Answers from a table instead of a model: what an API or a machine elsewhere answered, and how long it took.

The file is an `Outcomes` table (schema halve.outcomes/1, Parquet) with one more column, `payload_sha256`:
32 bytes per row, the content hash of the payload that the row answers.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from halve.core import Answerer, FloatArray, Model, Outcomes, Payload, Prediction
from halve.engines.files import only_file, verified_files
from halve.errors import AnswerError, InvalidParameterError, ModelError, RunFolderError

KEY_COLUMN = "payload_sha256"


@final
class RecordedEngine:
    """Loads models with exactly one `.parquet` file, as `save_recorded` writes it."""

    name = "recorded"

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        """Load the table; see `halve.core.Engine`. `threads` changes nothing."""
        if threads < 1:
            raise InvalidParameterError("threads", rule="at least 1", value=threads)
        path = only_file(model, verified_files(model, folder=folder), suffix=".parquet")
        try:
            outcomes = Outcomes.load(path)
        except RunFolderError as error:
            raise ModelError(f"model {model.name!r} cannot be loaded: {error}") from error
        return RecordedAnswerer(model, outcomes=outcomes, keys=_read_keys(path, owner=model.name))


@final
class RecordedAnswerer:
    """The table, found by payload. Where a payload was recorded several times, its first row stands."""

    def __init__(self, model: Model, *, outcomes: Outcomes, keys: Sequence[bytes]) -> None:
        self._name, self._outcomes = model.name, outcomes
        self._rows: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            self._rows.setdefault(key, row)

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return the recorded answer of each payload; AnswerError for one that was never recorded."""
        rows = self._find(payloads)
        probabilities = self._outcomes.probabilities
        return Prediction(
            answers=self._outcomes.answers[rows],
            probabilities=None if probabilities is None else probabilities[rows],
        )

    def compute_seconds(self, payloads: Sequence[Payload]) -> FloatArray:
        """Return the recorded seconds of compute of each payload, float64 (batch,)."""
        return self._outcomes.compute_seconds[self._find(payloads)]

    def close(self) -> None:
        """Forget the table."""
        self._rows = {}

    def _find(self, payloads: Sequence[Payload]) -> list[int]:
        rows: list[int] = []
        for index, payload in enumerate(payloads):
            row = self._rows.get(payload_key(payload))
            if row is None:
                raise AnswerError(self._name, index=index, cause="no answer to this payload was recorded")
            rows.append(row)
        return rows


def payload_key(payload: Payload) -> bytes:
    """Return the SHA-256 of a payload: of a text's UTF-8, or of a tensor's shape and float32 values."""
    if isinstance(payload, str):
        return hashlib.sha256(b"text:" + payload.encode()).digest()
    array = np.asarray(payload, dtype=np.float32)
    return hashlib.sha256(f"tensor:{array.shape}:".encode() + array.astype("<f4").tobytes()).digest()


def save_recorded(outcomes: Outcomes, path: Path, *, payloads: Sequence[Payload]) -> None:
    """Write outcomes with the payloads they answer, as RecordedEngine reads them; atomically.

    Raises:
        InvalidParameterError: If there is not one payload per row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from halve.core.documents import replace_file

    if len(payloads) != len(outcomes.answers):
        raise InvalidParameterError("payloads", rule=f"one per row, {len(outcomes.answers)}", value=len(payloads))
    outcomes.save(path)
    keys = pa.array([payload_key(payload) for payload in payloads], type=pa.binary(32))
    table = pq.read_table(path).append_column(KEY_COLUMN, keys)
    with replace_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _read_keys(path: Path, *, owner: str) -> list[bytes]:
    import pyarrow.parquet as pq

    if KEY_COLUMN not in pq.read_schema(path).names:
        raise ModelError(f"{path.name} of model {owner!r} must have a column {KEY_COLUMN}. See `save_recorded`.")
    keys: list[bytes] = pq.read_table(path, columns=[KEY_COLUMN])[KEY_COLUMN].to_pylist()
    return keys

"""Labelled examples out of files, or out of what a user's function returned. Splits and tunes nothing."""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.core import Example, Payload
from halve.errors import WorkloadError
from halve.workload.files import check_columns, check_exists, read_csv_columns

Columns = tuple[Iterable[object], Iterable[object]]
"""Payloads and references as a file holds them, unchecked."""


def read_examples(path: Path, *, payload: str, reference: str) -> list[Example]:
    """Return the labelled examples of a .jsonl, .csv, .parquet or .npz file, in its order.

    A payload is a text, or numbers that become a float32 tensor: nested lists in JSONL, lists in Parquet, an array of
    shape (n, ...) in NPZ. CSV holds texts only. A reference is a class index or a text; a CSV column of whole numbers
    holds class indices.

    Args:
        path: The file; its suffix says what it is.
        payload, reference: Names of the columns (of the arrays, for NPZ).

    Raises:
        WorkloadError: If the file is missing, damaged, empty or lacks a column; if a reference is neither a class index
            nor a text; if tensors hold NaN or differ in shape; or if all examples are of one class. Rows count from 1.
    """
    payloads, references = _reader(path)(path, payload, reference)
    return _checked(payloads, references, source=str(path))


def read_payloads(path: Path, *, payload: str) -> list[Payload]:
    """Return the payloads of a file without looking for references; else as `read_examples`."""
    rows, _ = _reader(path)(path, payload, payload)
    return checked_payloads(rows, source=str(path))


def read_columns(
    path: Path, *, payload: str, reference: str | None
) -> tuple[Iterable[object], Iterable[object] | None]:
    """Return two columns of a file as it holds them; None for references that were not asked for."""
    payloads, references = _reader(path)(path, payload, reference or payload)
    return payloads, references if reference else None


def checked_payloads(rows: Iterable[object], *, source: str) -> list[Payload]:
    """Return rows as payloads of one form; errors as in `read_examples`."""
    payloads = [_payload(row, number, source) for number, row in enumerate(rows, start=1)]
    if not payloads:
        raise WorkloadError(f"{source} must hold at least 1 row. Got 0.")
    _check_forms(payloads, source)
    return payloads


def _reader(path: Path) -> Callable[[Path, str, str], Columns]:
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise WorkloadError(f"{path} must end in {', '.join(_READERS)}. Got {path.suffix!r}.")
    check_exists(path)
    return read


def examples_from(value: object) -> list[Example]:
    """Return what a user's function gave, as checked examples.

    Args:
        value: `(payloads, references)`, two sequences or arrays of one length; or an iterable of `Example`.

    Raises:
        WorkloadError: If it is neither, or breaks a rule of `read_examples`.
    """
    source = "the examples function"
    if isinstance(value, tuple) and len(value) == 2 and not any(isinstance(part, Example) for part in value):
        payloads, references = value
        for what, part in (("payloads", payloads), ("references", references)):
            if isinstance(part, str) or not hasattr(part, "__len__"):
                raise WorkloadError(f"{what} of {source} must be a sequence. Got {type(part).__name__}.")
        return _checked(payloads, references, source=source)
    if not isinstance(value, Iterable):
        rule = "return (payloads, references), or an iterable of Example"
        raise WorkloadError(f"{source} must {rule}. Got {type(value).__name__}.")
    examples = list(value)
    for number, example in enumerate(examples, start=1):
        if not isinstance(example, Example):
            raise WorkloadError(f"row {number} of {source} must be an Example. Got {type(example).__name__}.")
    return _checked([e.payload for e in examples], [e.reference for e in examples], source=source)


def encode_references(examples: Sequence[Example], labels: Sequence[str]) -> list[Example]:
    """Return the examples with class indices for references, by position in `labels`; without labels, unchanged.

    Raises:
        WorkloadError: If a reference is no label, or an index that no label has; or if the labels are themselves
            numbers in another order, so that a number could mean either.
    """
    if not labels:
        return list(examples)
    index = {label: position for position, label in enumerate(labels)}
    if any(isinstance(example.reference, int) for example in examples):
        _check_numbers_agree(labels)
    return [
        Example(payload=example.payload, reference=_encoded(example.reference, index, number))
        for number, example in enumerate(examples, start=1)
    ]


def _check_numbers_agree(labels: Sequence[str]) -> None:
    for position, label in enumerate(labels):
        if label.isdecimal() and int(label) != position:
            rule = "at its own index, because references are whole numbers"
            raise WorkloadError(f"label {label!r} must stand {rule}. It stands at {position}.")


def _encoded(reference: int | str, index: dict[str, int], number: int) -> int:
    if isinstance(reference, int):
        if reference >= len(index):
            rule = f"a class index below {len(index)}, the number of labels"
            raise WorkloadError(f"reference of row {number} must be {rule}. Got {reference}.")
        return reference
    if reference not in index:
        near = get_close_matches(reference, list(index), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise WorkloadError(f"reference of row {number} must be one of the labels. Got {reference!r}.{hint}")
    return index[reference]


def _checked(payloads: Iterable[object], references: Iterable[object], *, source: str) -> list[Example]:
    rows = list(payloads)
    right = list(references)
    if len(rows) != len(right):
        raise WorkloadError(f"{source} must hold one reference per payload. Got {len(rows)} and {len(right)}.")
    if not rows:
        raise WorkloadError(f"{source} must hold at least 1 row. Got 0.")
    examples = [
        Example(payload=_payload(row, number, source), reference=_reference(value, number, source))
        for number, row, value in zip(count(1), rows, right, strict=False)
    ]
    _check_alike(examples, source)
    classes = {example.reference for example in examples}
    if len(classes) == 1:
        only = f"All {len(examples)} are {next(iter(classes))!r}"
        raise WorkloadError(
            f"{source} must hold at least 2 classes. {only}: quality cannot be measured with one class."
        )
    return examples


def _payload(value: object, number: int, source: str) -> Payload:
    if isinstance(value, str):
        return str(value)
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            tensor = np.ascontiguousarray(_numbers(value), dtype=np.float32)
    except (TypeError, ValueError):
        rule = "a text, or numbers in a regular shape"
        raise WorkloadError(f"payload of row {number} of {source} must be {rule}. Got {_short(value)}.") from None
    bad = ~np.isfinite(tensor)
    if bad.any():
        rule = "finite numbers that float32 holds"
        got = np.asarray(value).ravel()[int(np.argmax(bad))]
        raise WorkloadError(f"payload of row {number} of {source} must be {rule}. Got {got}.")
    return tensor


def _numbers(value: object) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise TypeError
    return array


def _reference(value: object, number: int, source: str) -> int | str:
    if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, str) and value:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    rule = "a class index from 0, or a text"
    raise WorkloadError(f"reference of row {number} of {source} must be {rule}. Got {_short(value)}.")


def _check_alike(examples: Sequence[Example], source: str) -> None:
    first = examples[0]
    _check_forms([example.payload for example in examples], source)
    for number, example in enumerate(examples, start=1):
        if type(example.reference) is not type(first.reference):
            rule = f"a {_KIND[type(first.reference)]}, like row 1"
            raise WorkloadError(f"reference of row {number} of {source} must be {rule}. Got {example.reference!r}.")


def _check_forms(payloads: Sequence[Payload], source: str) -> None:
    for number, row in enumerate(payloads, start=1):
        if _form(row) != _form(payloads[0]):
            rule = f"{_form(payloads[0])}, like row 1"
            raise WorkloadError(f"payload of row {number} of {source} must be {rule}. Got {_form(row)}.")


_KIND = {int: "class index", str: "text"}


def _form(payload: Payload) -> str:
    return "a text" if isinstance(payload, str) else f"a tensor of shape {payload.shape}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read_jsonl(path: Path, payload: str, reference: str) -> Columns:
    payloads, references = [], []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path} must be UTF-8: {error}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise WorkloadError(f"line {number} of {path} must be JSON: {error}.") from None
        if not isinstance(row, dict):
            raise WorkloadError(f"line {number} of {path} must be a JSON object. Got {_short(row)}.")
        check_columns(Path(f"line {number} of {path}"), wanted=(payload, reference), known=list(row))
        payloads.append(row[payload])
        references.append(row[reference])
    return payloads, references


def _read_csv(path: Path, payload: str, reference: str) -> Columns:
    payloads, cells = read_csv_columns(path, columns=(payload, reference))
    if all(re.fullmatch(r"[+-]?\d+", cell.strip()) for cell in cells):
        return payloads, [int(cell) for cell in cells]
    if all(_is_number(cell) for cell in cells):
        return payloads, [float(cell) for cell in cells]  # measurements, not classes: refused with row and value
    return payloads, cells


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, payload: str, reference: str) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_columns(path, wanted=(payload, reference), known=pq.read_schema(path).names)
        table = pq.read_table(path, columns=sorted({payload, reference}))
    except (pa.ArrowException, OSError) as error:
        raise WorkloadError(f"{path} must be a readable Parquet file: {_line(error)}.") from None
    return [_cell(value) for value in table[payload]], table[reference].to_pylist()


def _cell(value: Any) -> object:
    """One flat list goes to NumPy without a Python object per number; anything else by value."""
    import pyarrow as pa

    numbers = getattr(value, "values", None)
    if isinstance(numbers, pa.Array) and (pa.types.is_floating(numbers.type) or pa.types.is_integer(numbers.type)):
        return numbers.to_numpy(zero_copy_only=False)
    return value.as_py()


def _read_npz(path: Path, payload: str, reference: str) -> Columns:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array without a name")
            check_columns(path, wanted=(payload, reference), known=arrays.files)
            payloads, references = arrays[payload], arrays[reference]
    except (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise WorkloadError(f"{path} must be a readable NPZ file without Python objects: {_line(error)}.") from None
    for name, array in ((payload, payloads), (reference, references)):
        if array.ndim == 0:
            raise WorkloadError(f"array {name!r} of {path} must have one row per example. It is a single value.")
    return payloads, references


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


_READERS: dict[str, Callable[[Path, str, str], Columns]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
}

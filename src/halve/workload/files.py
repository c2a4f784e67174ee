"""Columns out of CSV files, and the sentences for files that cannot be read."""

import csv
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from halve.errors import WorkloadError


def check_exists(path: Path) -> None:
    """Raise WorkloadError unless the path is a file with something in it."""
    if not path.is_file():
        raise WorkloadError(f"{path} must be a file. There is none.")
    if path.stat().st_size == 0:
        raise WorkloadError(f"{path} must hold at least 1 row. It is empty.")


def check_columns(path: Path, *, wanted: Iterable[str], known: Sequence[str]) -> None:
    """Raise WorkloadError for the first wanted column that the file lacks, with the nearest one it has."""
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known) or 'none'}."
            raise WorkloadError(f"{path} must have a column {name!r}. {hint}")


def read_csv_columns(path: Path, *, columns: Sequence[str]) -> list[list[str]]:
    """Return the named columns of a CSV file with a header, each as its cells in order; blank lines are skipped.

    Raises:
        WorkloadError: If the file is missing, empty, not UTF-8, lacks a column, or a row has another number of
            cells than the header. Rows are counted from 1, the header not among them.
    """
    check_exists(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise WorkloadError(f"{path} must be CSV in UTF-8: {error}.") from None
    header, rows = (rows[0], rows[1:]) if rows else ([], [])
    check_columns(path, wanted=columns, known=header)
    if not rows:
        raise WorkloadError(f"{path} must hold at least 1 row. It has a header only.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            rule = f"as many cells as the header, {len(header)}"
            hint = "Texts with commas need quotes."
            raise WorkloadError(f"row {number} of {path} must have {rule}. Got {len(row)}. {hint}")
    return [[row[header.index(name)] for row in rows] for name in columns]

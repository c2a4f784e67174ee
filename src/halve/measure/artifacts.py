"""Model folders that are whole or absent, and the hashes of what lies in them."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from halve.core import ModelFile
from halve.errors import StorageError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success it becomes `path` in one step, else it is removed.

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adopt_files(folder: Path, *, relative_to: Path) -> tuple[ModelFile, ...]:
    """Return every file below a folder with its hash, paths relative to the run folder, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        ModelFile(path=path.relative_to(relative_to).as_posix(), sha256=sha256_of(path), size_bytes=path.stat().st_size)
        for path in files
    )

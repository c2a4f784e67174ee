"""Files that are there whole or not at all: a temporary name, fsync, a rename, fsync of the folder."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from halve.errors import MissingExtraError, StorageError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name beside `path`, then put it there in one step.

    Raises:
        StorageError: If the disk refuses; what stood at `path` before stays.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all."""
    write_whole(path, lambda partial: partial.write_text(json.dumps(document, indent=2) + "\n"))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the document, or None if there is none or it is damaged."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def require_safetensors(feature: str) -> None:
    """Refuse to go on without safetensors.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise MissingExtraError(feature, package="safetensors", extra="torch") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

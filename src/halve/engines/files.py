"""The bytes of a model on disk: found inside their folder, and unchanged since they were hashed."""

import hashlib
from pathlib import Path

from halve.core import Model
from halve.errors import ModelError


def verified_files(model: Model, *, folder: Path) -> dict[str, Path]:
    """Return each file of the model by its relative path, after checking its SHA-256.

    Raises:
        ModelError: If a file is missing, changed, or lies outside the folder.
    """
    root = folder.resolve()
    found: dict[str, Path] = {}
    for file in model.files:
        path = (root / file.path).resolve()
        if not path.is_relative_to(root):
            raise ModelError(f"files of model {model.name!r} must lie inside {folder}. Got {file.path!r}.")
        digest = _sha256(path, owner=model.name)
        if digest != file.sha256:
            raise ModelError(
                f"{file.path} of model {model.name!r} must have SHA-256 {file.sha256}. Got {digest!r}. "
                f"It was changed since it was recorded."
            )
        found[file.path] = path
    return found


def only_file(model: Model, files: dict[str, Path], *, suffix: str) -> Path:
    """Return the one file with this suffix.

    Raises:
        ModelError: If there is none, or more than one.
    """
    matching = [path for name, path in files.items() if name.endswith(suffix)]
    if len(matching) != 1:
        raise ModelError(f"files of model {model.name!r} must hold exactly one {suffix} file. Got {sorted(files)}.")
    return matching[0]


def _sha256(path: Path, *, owner: str) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} of model {owner!r} cannot be read: {error.strerror}.") from error

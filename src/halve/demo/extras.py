"""Optional dependencies of the demo, imported on first use and missed with the pip command."""

import importlib
import importlib.util
from pathlib import Path

from halve.errors import MissingExtraError


def require_torch() -> None:
    """Raise MissingExtraError unless torch can be imported."""
    try:
        importlib.import_module("torch")
    except ModuleNotFoundError:
        raise MissingExtraError("training a model", package="torch", extra="torch") from None


def package_folder(name: str, *, feature: str, package: str, extra: str) -> Path:
    """Return where an installed package lies, without importing it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(feature, package=package, extra=extra)
    return Path(next(iter(spec.submodule_search_locations)))

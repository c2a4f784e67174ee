"""`module:function` of a config, resolved with the config's own folder importable. Stack files never come here."""

import ast
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from halve.errors import ConfigError, HalveError, UserError


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Put the config's folder on the import path for the time of the context.

    Modules found there are forgotten afterwards: another config may have a `model.py` of its own.
    """
    text = str(folder.resolve())
    before = set(sys.modules)
    sys.path.insert(0, text)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(text)
        for name in set(sys.modules) - before:
            if _lies_in(name, folder.resolve()):
                del sys.modules[name]


def _lies_in(name: str, folder: Path) -> bool:
    """Return whether a loaded module was found by its name in that folder, or below it."""
    file = getattr(sys.modules[name], "__file__", None)
    places = [folder.joinpath(*name.split(".")).with_suffix(".py"), folder.joinpath(*name.split("."), "__init__.py")]
    return file is not None and Path(file) in places


def resolve(entry: str, *, field: str) -> Callable[[], object]:
    """Return the function that an entry names.

    Raises:
        ConfigError: If it is not `module:function`, cannot be imported, or is no function.
    """
    module_name, _, name = entry.partition(":")
    if not module_name or not name:
        raise ConfigError(field, [f"it must be 'module:function'. Got {entry!r}."])
    try:
        found = getattr(importlib.import_module(module_name), name)
    except HalveError:
        raise
    except Exception as error:  # importing runs the user's own code, which may raise anything
        raise ConfigError(field, [f"{entry!r} cannot be imported: {type(error).__name__}: {error}."]) from error
    if not callable(found):
        raise ConfigError(field, [f"{entry!r} must be a function. Got {type(found).__name__}."])
    return found  # type: ignore[no-any-return]


def call(entry: str, *, field: str) -> object:
    """Call the function that an entry names; what it raises is reported as the user's own."""
    function = resolve(entry, field=field)
    try:
        return function()
    except HalveError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{field}: {entry} raised {type(error).__name__}: {error}") from error


def source_hash(entry: str, *, field: str) -> str:
    """Return a SHA-256 over the source behind an entry: edited code is another question.

    That is the entry's own file and, from there, every file it imports out of the same tree, by name.
    """
    resolve(entry, field=field)
    module_name = entry.partition(":")[0]
    file = getattr(sys.modules[module_name], "__file__", None)
    if file is None:
        return ""
    root = Path(file).parents[module_name.count(".")]
    digest = hashlib.sha256()
    for path in sorted(_imported_files(Path(file), root)):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _imported_files(start: Path, root: Path) -> set[Path]:
    """Return a file and all files below `root` that it imports, directly or not; read, not run."""
    found, waiting = set[Path](), [start]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported_names(path, root):
            if not name:
                continue
            stem = root.joinpath(*name.split("."))
            waiting += [place for place in (stem.with_suffix(".py"), stem / "__init__.py") if place.is_file()]
    return found


def _imported_names(path: Path, root: Path) -> Iterator[str]:
    """Return the dotted names, from `root`, of what a file imports; its own packages too, as they run first."""
    packages = path.relative_to(root).parts[:-1]
    yield from (".".join(packages[: depth + 1]) for depth in range(len(packages)))
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = packages[: len(packages) - node.level + 1] if node.level else ()
            module = ".".join((*around, *((node.module,) if node.module else ())))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)

"""Nouns to and from YAML and JSON, with one sentence per problem, and files that are whole or absent."""

import dataclasses
import difflib
import json
import os
import secrets
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from halve.errors import ConfigError, HalveError, RunFolderError, StorageError

T = TypeVar("T")

UNICODE_LINE_BREAKS = "\x85\u2028\u2029"
"""Next line, line separator, paragraph separator."""


@cache
def _adapter(kind: Hashable) -> Any:
    from pydantic import TypeAdapter

    _forbid_extra(kind, set())
    return TypeAdapter[Any](cast("type[Any]", kind))


def _forbid_extra(kind: Any, seen: set[Any]) -> None:
    """Make pydantic refuse unknown keys in a dataclass and every dataclass below it."""
    for part in typing.get_args(kind):
        _forbid_extra(part, seen)
    if not dataclasses.is_dataclass(kind) or kind in seen:
        return
    seen.add(kind)
    if "__pydantic_config__" not in vars(kind):
        kind.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[union-attr]
    for hint in typing.get_type_hints(kind).values():
        _forbid_extra(hint, seen)


def parse(kind: type[T], data: object, *, source: str) -> T:
    """Return `data` as a dataclass of this kind.

    Raises:
        ConfigError: Listing every problem: the field, the rule, the value; a did-you-mean for unknown keys.
    """
    from pydantic import ValidationError

    try:
        return cast(T, _adapter(cast(Hashable, kind)).validate_python(data))
    except ValidationError as error:
        raise ConfigError(source, [_sentence(kind, problem) for problem in error.errors()]) from None


def _sentence(kind: type[Any], problem: Mapping[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location) or "the document"
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, HalveError):
        return str(cause)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _keys_at(kind, problem["loc"][:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known here: {', '.join(known)}."
        return f"{name} is not a known key.{hint}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{name} must be given."
    rule = str(problem["msg"])
    for prefix in ("Input should be ", "Value error, "):
        rule = rule.removeprefix(prefix)
    return f"{name} must be {rule[:1].lower() + rule[1:]}. Got {problem['input']!r}."


def _keys_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    for part in location:
        if not isinstance(part, str) or not dataclasses.is_dataclass(kind):
            continue
        kind = typing.get_type_hints(kind).get(part, kind)
        args = [arg for arg in typing.get_args(kind) if arg is not types.NoneType and arg is not Ellipsis]
        kind = next((arg for arg in args if dataclasses.is_dataclass(arg)), kind)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def to_plain(noun: object) -> Any:
    """Return a noun as dicts, lists and scalars, ready for JSON or YAML."""
    return _adapter(cast(Hashable, type(noun))).dump_python(noun, mode="json")


def dumps(noun: object, *, indent: int | None = None) -> str:
    """Return a noun as JSON; equal nouns give equal text."""
    return json.dumps(to_plain(noun), indent=indent, allow_nan=False)


def dump_yaml(noun: object) -> str:
    """Return a noun as YAML, fields in their declared order; equal nouns give equal text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes texts with the line breaks that PyYAML would otherwise write as they are and read as spaces."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = '"' if any(mark in text for mark in UNICODE_LINE_BREAKS) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    text: str = yaml.dump(_without_defaults(noun), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return text


def _without_defaults(noun: object) -> Any:
    plain = to_plain(noun)

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if item is not None}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(plain)


def load_yaml(kind: type[T], path: Path) -> T:
    """Read a YAML (or JSON) file as a dataclass of this kind.

    Raises:
        ConfigError: If the file is missing, is not YAML, or breaks a rule.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"it cannot be read: {error}."]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [f"it is not YAML: {' '.join(str(error).split())}."]) from None
    if not isinstance(data, dict):
        raise ConfigError(str(path), [f"it must hold a mapping of keys. Got {type(data).__name__}."])
    return parse(kind, data, source=str(path))


def load_json(kind: type[T], path: Path) -> T:
    """Read a JSON file that halve wrote; RunFolderError if it is damaged."""
    try:
        return parse(kind, json.loads(path.read_text()), source=str(path))
    except (OSError, ValueError, ConfigError) as error:
        raise RunFolderError(f"{path} is damaged or was not written by halve: {error}") from None


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a noun's file form."""
    schema: dict[str, Any] = _adapter(cast(Hashable, kind)).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a new path to write to; on success it takes the place of `path` in one step, else it is removed.

    A reader, or a kill -9, sees the old file or the new one, never a part.

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if not partial.is_symlink():
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        with suppress(OSError):  # the parent may be a file; the error above says so
            partial.unlink(missing_ok=True)

import dataclasses
import json
import re
import typing
from collections.abc import Iterator

import pytest
import yaml
from click.testing import CliRunner

from halve.assembly.config import Config
from halve.cli.init import command
from halve.core.documents import load_yaml, parse, to_plain


@pytest.fixture(scope="module")
def text() -> str:
    return CliRunner().invoke(command, []).output


def keys(kind: type, seen: set[type] | None = None) -> Iterator[str]:
    """Yield the name of every field of a dataclass and of all dataclasses below it."""
    seen = set() if seen is None else seen
    if kind in seen:
        return
    seen.add(kind)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield field.name
        for part in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(part):
                yield from keys(part, seen)


def test_it_is_valid_as_printed(text, tmp_path):
    (tmp_path / "halve.yaml").write_text(text)
    config = load_yaml(Config, tmp_path / "halve.yaml")
    assert config.name == "my-service"


@pytest.mark.parametrize("key", sorted(set(keys(Config))))
def test_every_key_is_shown(text, key):
    assert re.search(rf"^[ #-]*{key}:", text, flags=re.MULTILINE)


def test_the_values_shown_are_the_defaults(text):
    given = yaml.safe_load(text)
    yours = {key: given[key] for key in ("name", "examples", "model", "traffic")}
    shown, default = parse(Config, given, source="shown"), parse(Config, yours, source="default")
    assert to_plain(shown) == to_plain(default)


def test_alternatives_are_valid_too(text):
    swapped = re.sub(r"^  # (trace: \S+)", r"  \1", text, flags=re.MULTILINE)
    swapped = re.sub(r"^  generate:.*\n(    .*\n)*", "", swapped, flags=re.MULTILINE)
    assert parse(Config, yaml.safe_load(swapped), source="swapped").traffic.trace == "azure-code"


def test_json_is_the_same_config(text):
    printed = json.loads(CliRunner().invoke(command, ["--json"]).output)
    assert printed == yaml.safe_load(text)
    assert printed["schema"] == "halve.config/1"


def test_no_line_needs_scrolling(text):
    assert max(map(len, text.splitlines())) <= 120

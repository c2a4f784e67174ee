"""Writes `docs/configuration.md` from the dataclasses behind halve.yaml, their docstrings and the commented template.

    python tools/build_configuration_docs.py            write the page
    python tools/build_configuration_docs.py --check    exit with 1 if the page is not what would be written

Types and defaults are read from the code. What a key means is its line in the class's `Args`, else the comment of
the template, else OWN. RULES adds the range, with a value that breaks it: a test tries each of them.
"""

import dataclasses
import datetime
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from halve.assembly.config import Config

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"
TEMPLATE = ROOT / "src" / "halve" / "cli" / "templates" / "halve.yaml"

UNTRIED = object()
"""In RULES: the value is refused only once models are loaded, which a test of this page does not do."""

RULES: dict[str, tuple[str, object]] = {
    "examples.certify_share": ("in (0, 1)", 1.0),
    "traffic.thin": ("above 0; 1 keeps all", 0.0),
    "traffic.speed_up": ("positive and finite", 0.0),
    "traffic.popularity_exponent": ("finite and at least 0; not together with `content`", -1.0),
    "traffic.generate.requests_per_second": ("positive and finite", 0.0),
    "traffic.generate.duration_seconds": ("positive and finite", 0.0),
    "traffic.generate.squared_variation": ("positive and finite", 0.0),
    "traffic.generate.peak_to_mean": ("in [1, 2]", 2.5),
    "traffic.generate.period_seconds": ("positive and finite", 0.0),
    "prices.instances": ("names of the catalogue", ["m6a.larger"]),
    "prices.usd_per_hour": ("types of the catalogue; prices positive and finite", {"m6a.large": 0.0}),
    "baseline.threads": ("at least 1", UNTRIED),
    "baseline.replicas": ("`peak`, or at least 1", UNTRIED),
    "baseline.target_utilization": ("in (0, 1]", UNTRIED),
    "objective.quality_drop_at_most": ("in (0, 1): no number of examples proves a drop of 0", 0.0),
    "objective.confidence": ("in (0.5, 0.999]", 0.9999),
    "objective.latency_p99_seconds": ("positive and finite", 0.0),
    "model.preprocess.max_tokens": ("at least 1", UNTRIED),
    "training.epochs": ("at least 1", UNTRIED),
}
"""Of each key that has a range: the range, and a value that halve refuses."""

OWN = {
    "model.name": "unique among model, answerers and students",
    "training": "what distillation, pruning and mixture of experts may learn from; without it they do nothing",
    "encoder": "what makes vectors of texts, for the semantic cache; without it that lever does nothing",
    "encoder.file": "an ONNX file, relative to the config",
    "encoder.entry": "or `module:function` returning a torch module that gives one vector per text",
    "encoder.pooling": "how token states become one vector",
    "encoder.preprocess": "as for `model`, of kind `wordpiece`",
    "students": "untrained networks that distillation may train, of the form of `model`, each with an `entry`",
    "model.file": "an ONNX file, relative to the config",
    "examples.payload": "column (array, for NPZ) that holds what is asked: a text, or a tensor",
    "examples.reference": "column (array, for NPZ) that holds the right answer",
    "examples.labels": "class names, in the order of the model's outputs; needed where references are names",
    "model.preprocess.tokenizer_file": "for `wordpiece`: a `tokenizer.json`, or `module:function` returning its path",
    "traffic.thin": "share of arrivals kept, each independently at random",
    "traffic.generate.kind": "`gamma`: bursts; `diurnal`: a daily rise and fall",
    "prices.instances": "instance types that may be rented",
    "baseline.threads": "vCPUs of each replica",
    "baseline.replicas": "a number, or `peak`: busiest second x seconds per request / target_utilization, rounded up",
    "objective.quality_drop_at_most": "mean score that may be lost against the baseline; 0.01 is one point",
    "objective.confidence": "how sure the certificate must be",
    "baseline.instance_type": "where the model runs today",
    "replay.seconds": "length of the busiest window, which is really served; 0 turns the confirmation off",
    "traffic.generate": "arrivals drawn instead of recorded",
    "traffic.generate.requests_per_second": "mean rate",
    "traffic.generate.duration_seconds": "length of the observation",
    "schema": "version of this file's form",
    "examples": "what is asked, and what a right answer is",
    "model": "the model as it is today",
    "traffic": "when requests arrive",
    "prices": "what may be rented, at what price",
    "baseline": "how the model is run today",
    "objective": "the promises",
    "levers": "what may be tried; the order is always this one",
    "replay": "the confirmation",
    "answerers": "cheaper models that exist already, of the same form as `model`",
    "model.preprocess": "how a payload becomes the model's input",
}
"""What a key means where neither the docstring nor the template says it in one line."""

INTRO = """# halve.yaml, key by key

Made by `tools/build_configuration_docs.py` from the code; do not edit. `halve init` prints a commented file with
every key.

Unknown keys are refused with a did-you-mean, and all problems of a file's form are listed at once. Paths are relative
to the file. `module:function` names a Python function; the file's own folder is importable while halve runs. Only
this file may name code: stack files and run folders never do.
"""

OUTRO = """
## Exactly one of

- `examples`: `file` or `entry`.
- `model` and each of `answerers`: `file` or `entry`; each of `students`: `entry`.
- `training`: `file` or `entry`.
- `encoder`: `file` or `entry`.
- `traffic`: `trace`, `file` or `generate`.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the file: its path, its type, its default (as text) and the class that holds it."""

    path: str
    kind: Any
    default: str
    owner: type[Any]


def config_keys(kind: type[Any] = Config, prefix: str = "") -> Iterator[Key]:
    """Yield every key of a config class and of those below it; `model` describes `answerers` and `students`."""
    hints = typing.get_type_hints(kind)
    below: list[tuple[type[Any], str]] = []
    for field in dataclasses.fields(kind):
        path = f"{prefix}{field.name}"
        yield Key(path=path, kind=hints[field.name], default=_default(field), owner=kind)
        parts = (hints[field.name], *typing.get_args(hints[field.name]))
        nested = [part for part in parts if dataclasses.is_dataclass(part)]
        if nested and field.name not in ("answerers", "students"):
            below.append((typing.cast("type[Any]", nested[0]), f"{path}."))
    for nested_kind, nested_prefix in below:
        yield from config_keys(nested_kind, nested_prefix)


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "must be given"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def type_name(kind: Any) -> str:
    """Return a type as people write it in YAML."""
    arguments = [part for part in typing.get_args(kind) if part is not types.NoneType]
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(part) for part in arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "mapping of text to number"
    if dataclasses.is_dataclass(kind):
        return "mapping"
    return {str: "text", int: "whole number", float: "number", datetime.date: "date"}[kind]


def argument_lines(kind: type[Any]) -> dict[str, str]:
    """Return what the `Args` of a class say about each field."""
    found: dict[str, str] = {}
    names: list[str] = []
    _, _, section = (kind.__doc__ or "").partition("Args:")
    for line in section.split("\n\n")[0].splitlines():
        match = re.match(r"^ {8}([a-z0-9_, ]+): (.*)$", line)
        if match:
            names = match.group(1).split(", ")
            found |= dict.fromkeys(names, match.group(2))
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def template_comments(text: str) -> dict[str, str]:
    """Return the comment behind each key of the template, by its path; lines commented out count too."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"^( *)(?:# )?([a-z_0-9]+):(?: [^#]*?)?(?: +# (.*))?$", line)
        if not match:
            continue
        indent, key, comment = len(match.group(1)), match.group(2), match.group(3)
        above = [(depth, name) for depth, name in above if depth < indent]
        if comment:
            found.setdefault(".".join([*(name for _, name in above), key]), comment)
        above.append((indent, key))
    return found


def meaning(key: Key, comments: dict[str, str]) -> str:
    """Return what a key means; KeyError if nobody says it."""
    owner = key.path.rpartition(".")[0]
    arguments = {f"{owner}.{field}".removeprefix("."): text for field, text in argument_lines(key.owner).items()}
    text = {**comments, **arguments, **OWN}[key.path].rstrip(".")
    text = text[0].upper() + text[1:] if re.match("[a-z]+[ ,:]", text) else text
    rule = RULES.get(key.path)
    return f"{text}. Rule: {rule[0]}." if rule else f"{text}."


def page() -> str:
    """Return the whole page."""
    comments = template_comments(TEMPLATE.read_text())
    parts, section = [INTRO], None
    for key in sorted(config_keys(), key=lambda key: "." in key.path):
        owner = key.path.rpartition(".")[0]
        if owner != section:
            section = owner
            parts.append(f"\n## {section}\n" if section else "\n## Top level\n")
            parts.append("\n| key | type | default | what it means |\n| --- | --- | --- | --- |\n")
        name = key.path.rpartition(".")[2]
        parts.append(f"| `{name}` | {type_name(key.kind)} | {key.default} | {meaning(key, comments)} |\n")
    return "".join([*parts, OUTRO])


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit code."""
    wanted = page()
    if "--check" not in arguments:
        PAGE.write_text(wanted)
        return 0
    if PAGE.exists() and PAGE.read_text() == wanted:
        return 0
    sys.stderr.write(f"{PAGE.relative_to(ROOT)} is out of date: run python tools/build_configuration_docs.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

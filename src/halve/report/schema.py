"""The JSON Schemas that halve publishes, generated from the nouns; `write_schemas()` writes them anew."""

import json
from pathlib import Path
from typing import Any, cast

from halve.core import Run, Stack
from halve.core.documents import json_schema, replace_file
from halve.report.summary import ProfileSummary, RunSummary

FOLDER = Path(__file__).with_name("schemas")
KINDS: dict[str, type[Any]] = {
    "profile": ProfileSummary,
    "run": RunSummary,
    "run-record": Run,
    "stack": Stack,
}
"""File name without its ending, and the noun behind it."""


def published_schema(name: str) -> dict[str, Any]:
    """Return a shipped schema by its name in KINDS: `run` is what `halve optimize --json` prints."""
    return cast(dict[str, Any], json.loads((FOLDER / f"{name}.json").read_text()))


def generated_schema(name: str) -> dict[str, Any]:
    """Return the schema as the noun of today gives it."""
    schema = json_schema(KINDS[name])
    version = schema["properties"]["schema"]["const"]
    schema["required"] = sorted({*schema.get("required", []), "schema"})
    return {**schema, "title": version}


def write_schemas(folder: Path = FOLDER) -> None:
    """Write every schema into a folder."""
    for name in KINDS:
        with replace_file(folder / f"{name}.json") as partial:
            partial.write_text(json.dumps(generated_schema(name), indent=2) + "\n")

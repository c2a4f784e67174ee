"""Each range on the configuration page is one that halve enforces."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from halve.assembly.config import Config
from halve.assembly.wiring import _prices
from halve.assembly.workload import load_workload
from halve.core.documents import parse
from halve.errors import HalveError

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"squared_variation": "gamma", "peak_to_mean": "diurnal", "period_seconds": "diurnal"}


@pytest.fixture(scope="session")
def script():
    spec = spec_from_file_location("build_configuration_docs", ROOT / "tools" / "build_configuration_docs.py")
    module = module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    rows = ({"payload": [float(row)], "label": row % 2} for row in range(1500))
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def accepted(document, folder):
    config = parse(Config, document, source="halve.yaml")
    load_workload(config, folder=folder)
    _prices(config)


def document():
    return {
        "name": "service",
        "examples": {"file": "examples.jsonl"},
        "model": {"name": "model", "file": "model.onnx"},
        "traffic": {"generate": {"requests_per_second": 5.0, "duration_seconds": 20.0}},
    }


def test_the_config_itself_is_accepted(folder):
    accepted(document(), folder)


def test_rules_speak_of_keys_that_exist(script):
    assert set(script.RULES) <= {key.path for key in script.config_keys()}


def test_every_rule_is_enforced(script, folder):
    tried = {path: value for path, (_, value) in script.RULES.items() if value is not script.UNTRIED}
    assert len(tried) >= 14
    lax = []
    for path, value in tried.items():
        changed = document()
        *above, key = path.split(".")
        place = changed
        for part in above:
            place = place.setdefault(part, {})
        place[key] = value
        if key in KINDS:
            place["kind"] = KINDS[key]
        try:
            accepted(changed, folder)
        except HalveError:
            continue
        lax.append(path)
    assert lax == []


def test_defaults_and_types_are_shown(script):
    page = script.page()
    assert "| `certify_share` | number | `0.5` |" in page
    assert "| `replicas` | whole number or `peak` | `peak` |" in page
    assert "| `requests_per_second` | number | must be given |" in page


def test_check_notices_another_page(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "PAGE", script.ROOT / "docs" / "errors.md")
    assert script.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err

import errno
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given

from halve.core import Acceptance, Measurement, Recipe, Run, Stack
from halve.core.documents import (
    UNICODE_LINE_BREAKS,
    dump_yaml,
    dumps,
    json_schema,
    load_json,
    load_yaml,
    parse,
    replace_file,
    to_plain,
)
from halve.errors import ConfigError, RunFolderError, StorageError
from halve.testing.strategies import measurements, stacks


@pytest.mark.parametrize("mark", UNICODE_LINE_BREAKS)
def test_unicode_line_breaks_survive_yaml(mark: str) -> None:
    recipe = Recipe(technique="given", parameters={"note": f"a{mark}b", "alone": mark})
    assert parse(Recipe, yaml.safe_load(dump_yaml(recipe)), source="recipe.yaml") == recipe


@given(stacks())
def test_a_stack_survives_yaml_and_json(stack: Stack) -> None:
    assert parse(Stack, yaml.safe_load(dump_yaml(stack)), source="stack.yaml") == stack
    assert parse(Stack, json.loads(dumps(stack)), source="stack.json") == stack
    assert dump_yaml(stack) == dump_yaml(parse(Stack, to_plain(stack), source="again"))


@given(measurements())
def test_a_measurement_survives_json(measurement: Measurement) -> None:
    assert parse(Measurement, json.loads(dumps(measurement)), source="m") == measurement


@given(stacks())
def test_every_stack_file_fits_the_published_schema(stack: Stack) -> None:
    import jsonschema

    jsonschema.validate(yaml.safe_load(dump_yaml(stack)), json_schema(Stack))


def test_the_schema_of_a_run_is_a_schema() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(json_schema(Run))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rule": "margin"}, "f.yaml: threshold must be given."),
        ({"rule": "margin", "threshold": "x"}, r"threshold must be a valid number.*Got 'x'\."),
        ({"rule": "margin", "threshold": float("nan")}, "threshold must be a finite number. Got nan."),
        ({"rule": "margn", "threshold": 0.5}, "rule must be 'maximum_probability', 'margin' or 'entropy'. Got"),
        ({"rule": "margin", "treshold": 1, "threshold": 1}, "treshold is not a known key. Did you mean 'threshold'?"),
        ({"rule": "margin", "threshold": 1, "zz": 1}, "zz is not a known key. Known here: rule, threshold."),
        ({}, "f.yaml has 2 problems:\n  - rule must be given.\n  - threshold must be given."),
    ],
)  # fmt: skip
def test_each_problem_is_one_sentence(data: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Acceptance, data, source="f.yaml")


def test_an_unknown_key_deep_inside_is_found_by_its_path() -> None:
    data = {
        "name": "s",
        "models": [{"name": "a", "engine": "torch", "preproces": {}}],
        "stages": [{"kind": "model", "model": "a", "accept": {"rule": "margin", "threshold": 1, "thresh": 2}}],
        "deployments": [],
        "gateway": {"instance_type": "c6a.large"},
    }
    with pytest.raises(ConfigError) as caught:
        parse(Stack, data, source="stack.yaml")
    assert "models.0.preproces is not a known key. Did you mean 'preprocess'?" in caught.value.problems
    assert "stages.0.accept.thresh is not a known key. Did you mean 'threshold'?" in caught.value.problems


def test_a_rule_of_ours_keeps_its_own_sentence() -> None:
    data = {"name": "s", "models": [], "stages": [], "deployments": [], "gateway": {"instance_type": "c6a.large"}}
    with pytest.raises(ConfigError, match="stages must be a chain that ends in a model"):
        parse(Stack, data, source="stack.yaml")


def test_not_a_mapping_at_all() -> None:
    with pytest.raises(ConfigError, match="the document must be"):
        parse(Recipe, 5, source="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "it is not YAML"),
        ("- 1\n- 2", "it must hold a mapping of keys. Got list."),
        ("", "it must hold a mapping of keys. Got NoneType."),
    ],
)
def test_files_that_are_not_configs(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "halve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(Acceptance, path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: there is no such file\."):
        load_yaml(Acceptance, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="it cannot be read"):
        load_yaml(Acceptance, tmp_path)
    with pytest.raises(RunFolderError, match=r"run.json is damaged or was not written by halve"):
        load_json(Acceptance, tmp_path / "run.json")


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("rule: entropy\nthreshold: 0.5\n")
    assert load_yaml(Acceptance, path) == load_json(Acceptance, _as_json(path))


def _as_json(path: Path) -> Path:
    other = path.with_suffix(".json")
    other.write_text(json.dumps(yaml.safe_load(path.read_text())))
    return other


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted() -> None:
        with replace_file(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"could not be written: the disk is full\. What was measured before is kept\."),
        (errno.EACCES, r"could not be written: .*Permission denied"),
    ],
)
def test_a_disk_that_refuses_is_said_in_one_sentence(tmp_path: Path, code: int, message: str) -> None:
    with pytest.raises(StorageError, match=message), replace_file(tmp_path / "file"):
        raise OSError(code, os.strerror(code))


def test_a_folder_that_is_a_file_is_said_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="could not be written"), replace_file(tmp_path / "file" / "deeper"):
        raise AssertionError("nothing is written into what is no folder")


def test_a_really_full_device_is_said_too() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="the disk is full"), replace_file(Path("/tmp/halve-full")):
        full.write_text("x")


def test_links_are_replaced_in_one_step(tmp_path: Path) -> None:
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        with replace_file(tmp_path / "latest") as link:
            link.symlink_to(target)
        assert (tmp_path / "latest").resolve().name == target

from dataclasses import fields
from importlib.resources import files
from typing import get_args

import pytest
import yaml

from halve.assembly.config import LADDER, Config, LeverName
from halve.core.documents import parse, to_plain
from halve.errors import ConfigError
from halve.testing.tiny_service import config


def problem(**changes):
    with pytest.raises(ConfigError) as caught:
        parse(Config, config(**changes), source="halve.yaml")
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_a_config_round_trips():
    loaded = parse(Config, config(), source="here")
    assert parse(Config, to_plain(loaded), source="there") == loaded


def test_the_template_shows_every_key_at_its_default():
    text = files("halve.cli").joinpath("templates", "halve.yaml").read_text()
    document = yaml.safe_load(text)
    assert list(document) == [field.name for field in fields(Config) if field.name not in ("training", "encoder")]
    assert "\n# training:\n#   file: " in text, "none is the default, so it is shown as a comment"
    assert "\n# encoder:\n#   file: " in text
    minimal = {key: document[key] for key in ("name", "examples", "model", "traffic")}
    assert parse(Config, document, source="template") == parse(Config, minimal, source="defaults")


def test_every_lever_is_on_the_ladder():
    assert set(LADDER) == set(get_args(LeverName))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"examples": {"file": "a.npz", "entry": "a:b"}},
            "examples must be described by exactly one of file, entry. Got ['file', 'entry'].",
        ),
        ({"examples": {}}, "examples must be described by exactly one of file, entry. Got []."),
        (
            {"examples": {"file": "a.npz", "certify_share": 1.0}},
            "examples.certify_share must be in (0, 1). Got 1.0.",
        ),
        ({"model": {"name": "m"}}, "model m must be described by exactly one of file, entry. Got []."),
        ({"traffic": {}}, "traffic must be described by exactly one of trace, file, generate. Got []."),
        ({"modle": {}}, "modle is not a known key. Did you mean 'model'?"),
        ({"objective": {"confidence": 1}}, "objective.confidence must be in (0.5, 1). Got 1.0."),
        ({"name": None}, "name must be given."),
        ({"schema": "halve.config/9"}, "schema must be 'halve.config/1'. Got 'halve.config/9'."),
    ],
)
def test_a_broken_rule_is_one_sentence(changes, sentence):
    assert problem(**changes) == sentence


def test_a_lever_that_is_unknown_names_the_known_ones():
    assert "right_sizing" in problem(levers=["speculation"])


@pytest.mark.parametrize("name", ["gateway", "exact_cache", "../x", ""])
def test_model_names_name_folders_and_stations(name):
    given = {**config()["model"], "name": name}
    assert problem(model=given).startswith("name of a model must be 1 to 64 letters")


def test_contents_are_a_column_of_a_file():
    traffic = {"trace": "azure-conv", "content": "text"}
    assert problem(traffic=traffic).startswith("traffic.content must be given only with traffic.file")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": {"entry": "mine:more", "epochs": 0}}, "training.epochs must be at least 1"),
        ({"training": {}}, "training must be described by exactly one of file, entry"),
        ({"students": [{"name": "tiny", "file": "tiny.onnx"}]}, "student tiny.entry must be a module:function"),
        (
            {"students": [{"name": "teacher", "entry": "mine:tiny"}]},
            "names of model, answerers and students must be unique",
        ),
    ],
)
def test_what_is_trained_and_on_what(changes, sentence):
    assert sentence in problem(**changes)

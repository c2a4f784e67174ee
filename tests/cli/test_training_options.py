from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from halve.cli.training_options import names_of, training_options

OPTIONS = [
    "--data", "--out", "--payload", "--label", "--labels", "--tokenizer", "--max-tokens", "--augment", "--epochs",
    "--learning-rate", "--int8", "--hold-out", "--quality-drop-at-most", "--confidence", "--seed",
]  # fmt: skip


def run(*arguments):
    found = {}

    @click.command()
    @training_options
    def command(**options):
        found.update(options)

    return CliRunner().invoke(command, arguments), found


def test_defaults_are_those_of_the_verbs():
    result, found = run("--data", "d.npz", "-o", "out")
    assert result.exit_code == 0
    assert found == {
        "data": "d.npz", "out": Path("out"), "payload": "payload", "label": None, "labels": "", "tokenizer": None,
        "max_tokens": 64, "augment": None, "epochs": None, "learning_rate": None, "integers": False, "hold_out": 0.2,
        "quality_drop_at_most": 0.01, "confidence": 0.95, "seed": 0,
    }  # fmt: skip


def test_options_stand_in_the_help_in_the_order_of_use():
    result, _ = run("--help")
    places = [result.output.index(f"{option} ") for option in OPTIONS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "arguments", [(), ("--data", "d"), ("-o", "o"), ("--data", "d", "-o", "o", "--epochs", "0"),
                  ("--data", "d", "-o", "o", "--seed", "-1"), ("--data", "d", "-o", "o", "--max-tokens", "0"),
                  ("--data", "d", "-o", "o", "--hold-out", "much")],
)  # fmt: skip
def test_wrong_usage_is_two(arguments):
    result, found = run(*arguments)
    assert result.exit_code == 2
    assert found == {}


@pytest.mark.parametrize(
    ("labels", "names"), [("", ()), ("no,yes", ("no", "yes")), (" no , yes ,", ("no", "yes")), ("a b,c", ("a b", "c"))]
)
def test_names_are_cut_at_commas(labels, names):
    assert names_of(labels) == names

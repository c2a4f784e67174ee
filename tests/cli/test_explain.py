import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from halve.cli.explain import command
from halve.learn import as_text, explain


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "halve.cli", "explain", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_prints_the_derivation_with_the_readers_numbers():
    done = CliRunner().invoke(command, ["quantization", "--low", "-1", "--high", "3", "--bits", "4", "--value", "0.3"])
    assert done.exit_code == 0
    assert done.stdout == as_text(explain("quantization", low=-1, high=3, bits=4, value=0.3))
    assert done.stderr == ""


def test_json_is_one_versioned_object():
    done = CliRunner().invoke(command, ["quantization", "--json"])
    document = json.loads(done.stdout)
    assert set(document) == {"schema", "topic", "title", "given", "steps", "sources"}
    assert document["schema"] == "halve.explain/1"
    assert document["given"] == {"low": -0.8, "high": 1.2, "bits": 8, "value": 0.5}
    assert all(set(step) == {"title", "reason", "lines", "figures"} for step in document["steps"])
    figures = {name: figure for step in document["steps"] for name, figure in step["figures"].items()}
    assert (figures["zero_point"], figures["integer"]) == (102, 166)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bits", "9"), "error: bits must be 2 to 8. Got 9.\n"),
        (("--low", "2"), "error: range must be low <= high. Got (2.0, 1.2).\n"),
        (("--value", "nan"), "error: value must be finite, within +-1.7e38. Got nan.\n"),
    ],
)
def test_a_bad_number_is_one_sentence_and_exit_code_one(arguments, message):
    done = run("quantization", *arguments)
    assert (done.returncode, done.stderr, done.stdout) == (1, message, "")


@pytest.mark.parametrize("arguments", [(), ("astrology",), ("quantization", "--bits", "many")])
def test_wrong_usage_is_two(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_help_tells_what_each_number_is_for():
    text = run("--help").stdout
    assert "quantization" in text
    assert "least real number; -0.8 if not given" in " ".join(text.split())

import json

import jsonschema
import pytest
from click.testing import CliRunner

from halve.cli.outcome import exit_code
from halve.cli.report import command
from halve.optimize import RunStore
from halve.report import published_schema, render_html


@pytest.fixture
def saved(records, tmp_path):
    """A standard run on disk, as optimize leaves it."""
    folder = tmp_path / "runs" / "mnist"
    folder.mkdir(parents=True)
    RunStore(folder).save_run(records["standard"]())
    return folder


def test_it_prints_the_report_on_stdout(saved):
    done = CliRunner().invoke(command, [str(saved)])
    assert done.exit_code == 0
    assert done.stdout.startswith("halve  mnist-demo")
    assert "92.3 % cheaper" in done.stdout.splitlines()[0]
    assert done.stderr == ""


def test_json_is_one_valid_object(saved):
    done = CliRunner().invoke(command, [str(saved), "--json"])
    document = json.loads(done.stdout)
    jsonschema.validate(document, published_schema("run"), cls=jsonschema.Draft202012Validator)
    assert document["stack"] == str(saved / "stack.yaml")


def test_html_is_written_where_asked_and_told_on_stderr(saved, records, tmp_path):
    page = tmp_path / "page.html"
    done = CliRunner().invoke(command, [str(saved), "--html", str(page), "--json"])
    assert done.exit_code == 0
    assert page.read_text(encoding="utf-8") == render_html(records["standard"]())
    assert done.stderr == f"wrote {page}\n"
    assert json.loads(done.stdout)["schema"] == "halve.run/1"


@pytest.mark.parametrize(("name", "code"), [("standard", 0), ("dearer", 0), ("nothing_kept", 3), ("one_rung", 3)])
def test_optimize_ends_with_three_when_nothing_was_kept(records, name, code):
    assert exit_code(records[name]()) == code

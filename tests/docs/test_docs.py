"""The written side is true: blocks run and print what stands there, commands and links exist, versions agree."""

import ast
import contextlib
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

import halve
import halve.errors
from halve.assembly.config import Config
from halve.cli import COMMANDS
from halve.cli.options import Settings
from halve.core.documents import load_yaml
from halve.demo import config_path
from halve.optimize import RunStore
from halve.serving.gateway.chain import Answered, InputSpec
from halve.serving.gateway.protocol import parse_request, render_response

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^(<!-- run -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNABLE = re.compile(r"^<!-- run -->\n```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def name(page):
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else None


def blocks(language):
    return [
        pytest.param(body, id=f"{name(page)}-{number}")
        for page in PAGES
        for number, (_, kind, body) in enumerate(FENCE.findall(page.read_text()))
        if kind == language
    ]


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        pytest.param(*found, id=f"{name(page)}-{number}")
        for page in PAGES
        for number, found in enumerate(RUNNABLE.findall(page.read_text()))
    ],
)
def test_marked_blocks_run_and_print_what_stands_below(code, printed, finished_run, tmp_path, monkeypatch):
    RunStore(tmp_path / "runs" / "shown").save_run(finished_run)
    monkeypatch.chdir(tmp_path)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "docs", "exec"), {"__name__": "__main__"})
    assert output.getvalue()
    if printed:
        assert output.getvalue() == printed


def test_every_kind_of_block_is_found():
    assert len(RUNNABLE.findall((ROOT / "README.md").read_text())) == 1
    marked = sum(page.read_text().count("<!-- run -->\n```") for page in PAGES)
    assert marked == sum(len(RUNNABLE.findall(page.read_text())) for page in PAGES) >= 4


@pytest.mark.parametrize("code", blocks("python"))
def test_calls_of_halve_fit_its_signatures(code):
    for node in ast.walk(ast.parse(code)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "halve"
        ):
            function = getattr(halve, node.func.attr)
            inspect.signature(function).bind(*node.args, **{str(word.arg): word.value for word in node.keywords})


def command_lines():
    """Every `halve ...` in a shell block, a code span or the Makefile-like lines of a page; comments and pipes cut."""
    for page in PAGES:
        text = page.read_text()
        spans = re.findall(r"`(halve [^`\n]+)`", text)
        lines = [line for _, kind, body in FENCE.findall(text) if kind == "sh" for line in body.splitlines()]
        for line in [*spans, *lines]:
            found = re.match(r"(?:\w+=\S+ )*halve (.*)", re.split(r"\s[#>|]", line)[0])
            if found:
                yield name(page), found[1]


def test_commands_are_found():
    assert len({line.split()[0] for _, line in command_lines()}) == len(COMMANDS)


@pytest.mark.parametrize(("page", "line"), sorted(set(command_lines())))
def test_every_command_exists_with_its_options(page, line):
    verb, *arguments = shlex.split(line)
    assert verb in COMMANDS
    command = import_module(f"halve.cli.{verb}").command
    if isinstance(command, click.Group) and arguments != ["--help"]:
        verb, *arguments = arguments
        command = command.get_command(click.Context(command, obj=Settings()), verb)
        assert command is not None
    if arguments == ["--help"]:
        return
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known
    if arguments:
        with contextlib.suppress(click.exceptions.Exit):
            command.make_context(verb, list(arguments), obj=Settings())


@pytest.mark.parametrize(
    ("page", "link"),
    [
        pytest.param(page, link, id=f"{name(page)}-{link}")
        for page in PAGES
        for link in sorted(set(re.findall(r"\]\(([^)\s]+)\)", page.read_text())))
        if "://" not in link
    ],
)
def test_every_relative_link_resolves(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("page", "path"),
    sorted(
        {
            (name(page), path)
            for page in PAGES
            for path in re.findall(r"`((?:src|tools|tests|examples|benchmarks|docs)/[\w./]+)`", page.read_text())
            if not re.search(r"\b(?:FAMILY|NAME)\b", path)  # the reader's own
        }
    ),
)
def test_every_path_named_exists(page, path):
    assert (ROOT / path).exists()


def test_every_source_file_that_architecture_names_exists():
    rooms = {path.name for path in (ROOT / "src" / "halve").iterdir() if path.is_dir()}
    named = re.findall(r"`([a-z_]+/[a-z_/.]+\.(?:py|csv|yaml))`", (ROOT / "ARCHITECTURE.md").read_text())
    ours = [path for path in named if path.split("/")[0] in rooms]
    assert len(ours) > 10
    assert [path for path in ours if not (ROOT / "src" / "halve" / path).exists()] == []


def test_every_room_has_its_sentence():
    rooms = {path.name for path in (ROOT / "src" / "halve").iterdir() if (path / "__init__.py").exists()}
    rows = re.findall(r"^\| `([a-z]+)` \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert set(rows) == rooms


def test_readme_has_one_waterfall_block_with_one_fence():
    found = re.findall(
        r"<!-- waterfall: begin -->\n(.*?)<!-- waterfall: end -->", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert len(found) == 1
    assert found[0].count("```") == 2


def test_readme_says_what_the_demo_is():
    config = load_yaml(Config, config_path("classify"))
    traffic = f"{config.traffic.speed_up:g} times faster and {config.traffic.multiply} times as many"
    assert traffic in " ".join((ROOT / "README.md").read_text().split())


def test_readme_curl_is_a_request_and_its_answer_is_ours():
    text = (ROOT / "README.md").read_text()
    body = re.search(r"curl .* -d '(.*)'", text)[1]
    shown = re.search(r"```json\n(.*?)```", text, re.DOTALL)[1]
    request = parse_request(body.encode(), takes=InputSpec(datatype="BYTES"))
    answer = Answered(1, None, "student")
    rendered = render_response([answer], request, model_name="my-service", labels=["balance", "card_arrival"])
    assert json.loads(rendered) == json.loads(shown)


def test_readme_lists_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text().split("| extra | for |")[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(extras)


def test_the_error_tree_is_that_of_the_code():
    drawn = next(body for _, kind, body in FENCE.findall((ROOT / "docs" / "errors.md").read_text()) if kind == "text")
    assert "".join(f"    {line}\n" for line in drawn.splitlines()) in halve.errors.__doc__
    classes = {
        key
        for key, value in vars(halve.errors).items()
        if inspect.isclass(value) and value.__module__ == "halve.errors"
    }
    assert set(re.findall(r"\w+Error", drawn)) == classes


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {halve.__version__, changelog, citation["version"]} == {project}


def test_configuration_page_is_up_to_date():
    script = ROOT / "tools" / "build_configuration_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

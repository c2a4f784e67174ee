import re
import subprocess
import sys

import pytest

from halve.cli import COMMANDS
from halve.cli.cache import COMMANDS as OF_CACHE

NOT_FOUND = re.compile(r"Traceback|File \"")


CACHE_COMMANDS = [f"cache {name}" for name in OF_CACHE]


def halve(*arguments: str, cwd=None, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "halve.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        **options,
    )


def test_help_lists_every_command_in_order():
    done = halve("--help")
    assert done.returncode == 0
    assert re.findall(r"^  (\w+)  ", done.stdout.split("Commands:")[1], flags=re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS, *CACHE_COMMANDS])
def test_help_ends_with_two_runnable_examples(command):
    done = halve(*command.split(), "--help")
    assert done.returncode == 0
    lines = done.stdout.rstrip().splitlines()
    assert lines[-3] == "Examples:"
    assert all(line.startswith(f"  halve {command}".rstrip()) for line in lines[-2:])


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name != "cache"), *CACHE_COMMANDS])
def test_every_command_has_json_and_debug(command):
    text = halve(*command.split(), "--help").stdout
    assert "--json" in text
    assert "--debug" in text
    assert ("--seed" in text) == (command in ("demo", "profile", "optimize", "quantize", "distill", "prune"))


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from halve.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'numpy', 'scipy', 'numba', 'pyarrow', 'pydantic', 'yaml', 'rich', 'jinja2', 'torch', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"


def test_version():
    from halve import __version__

    assert halve("--version").stdout == f"halve, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("optimise", "halve.yaml"), "No such command 'optimise'"),
        (("optimize",), "Missing argument 'CONFIG'"),
        (("optimize", "halve.yaml", "--sead", "1"), "No such option"),
        (("optimize", "halve.yaml", "--seed", "-1"), "'--seed'"),
        (("demo", "nonsense"), "'nonsense' is not"),
        (("serve", "stack.yaml", "--port", "70000"), "'--port'"),
    ],
)
def test_wrong_usage_is_two_and_one_sentence(arguments, message):
    done = halve(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert not NOT_FOUND.search(done.stderr)


@pytest.mark.parametrize("command", ["optimize", "profile"])
def test_a_missing_config_is_the_users_to_fix(command, tmp_path):
    done = halve(command, "absent.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: absent.yaml: there is no such file.\n"
    assert done.stdout == ""


def test_an_unknown_key_gets_a_did_you_mean(tmp_path):
    config = halve("init").stdout.replace("latency_p99_seconds:", "latency_p99_second:")
    (tmp_path / "halve.yaml").write_text(config)
    done = halve("optimize", "halve.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "objective.latency_p99_second is not a known key. Did you mean 'latency_p99_seconds'?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_all_problems_of_a_config_are_listed_at_once(tmp_path):
    config = halve("init").stdout.replace("confidence: 0.95", "confidence: 1.5").replace("seed: 0 ", "sede: 0 ")
    (tmp_path / "halve.yaml").write_text(config)
    done = halve("optimize", "halve.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "halve.yaml has 2 problems:" in done.stderr
    assert "objective.confidence must be in (0.5, 1). Got 1.5." in done.stderr
    assert "sede is not a known key. Did you mean 'seed'?" in done.stderr


def test_debug_adds_the_traceback(tmp_path):
    done = halve("optimize", "absent.yaml", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("error: absent.yaml: there is no such file.\n")


def test_debug_can_come_from_the_environment(tmp_path):
    import os

    done = halve("optimize", "absent.yaml", cwd=tmp_path, env=os.environ | {"HALVE_DEBUG": "1"})
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("damage", ["missing", "empty", "nonsense"])
def test_a_damaged_run_folder_is_one_sentence(tmp_path, damage):
    folder = tmp_path / "runs" / "r"
    if damage != "missing":
        folder.mkdir(parents=True)
    if damage == "nonsense":
        (folder / "run.json").write_text('{"schema": "halve.run-record/1", "nam')
    done = halve("report", "runs/r", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "runs" in done.stderr
    assert not NOT_FOUND.search(done.stderr)


@pytest.mark.parametrize("text", [None, "nonsense: [", "schema: halve.stack/1\n"])
def test_a_damaged_stack_is_one_sentence(tmp_path, text):
    if text is not None:
        (tmp_path / "stack.yaml").write_text(text)
    done = halve("serve", "stack.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "stack.yaml" in done.stderr
    assert not NOT_FOUND.search(done.stderr)

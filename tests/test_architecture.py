"""The rules that hold the house up, checked by machine: imports, sizes, mirrors, exported names."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src" / "halve", ROOT / "tests"
MODULES = sorted(SOURCE.rglob("*.py"))

TESTED_ELSEWHERE = {
    "__init__.py": "tests/test_architecture.py: what it loads and exports",
    "assembly/cache_replay.py": "tests/cli/test_cache_replay.py: the command is little else",
    "cli/__init__.py": "tests/cli/test_main.py and test_exit_codes.py",
    "cli/__main__.py": "every test that starts `python -m halve.cli`",
    "cli/cache.py": "tests/cli/test_main.py, and the tests of its two commands",
    "cli/demo.py": "tests/demo; the whole command is what `make demo` runs",
    "cli/optimize.py": "tests/assembly/test_api.py and tests/e2e",
    "cli/options.py": "tests/cli/test_main.py: every command has them",
    "cli/outcome.py": "tests/assembly/test_api.py and tests/e2e",
    "cli/profile.py": "tests/cli/test_main.py; profile itself in tests/assembly/test_api.py",
    "cli/quantize.py": "tests/cli/test_tables.py runs the command",
    "cli/serve.py": "tests/cli/test_main.py and tests/assembly/test_serving.py",
    "demo/__init__.py": "tests/demo/test_configs.py",
    "core/ports.py": "protocols: every implementation has its test or contract suite",
    "engines/__init__.py": "tests/engines/test_init.py",
    "report/charts/bars.py": "tests/report/charts/test_charts.py",
    "report/charts/certificate.py": "tests/report/charts/test_charts.py",
    "report/charts/latency.py": "tests/report/charts/test_charts.py",
    "report/charts/plane.py": "tests/report/charts/test_charts.py",
    "report/charts/waterfall.py": "tests/report/charts/test_charts.py",
    "serving/asgi.py": "tests of both servers go through it",
    "serving/chat/call.py": "tests/serving/chat/test_app.py: every reply goes through it",
    "serving/chat/ports.py": "protocols, and two records; tests/serving/chat/conftest.py fills them",
    "serving/chat/server.py": "tests/serving/chat/conftest.py starts it",
    "serving/http_server.py": "tests/serving/gateway/test_server.py",
    "techniques/compression/quantization/runtime.py": "tests of export and post_training run through it",
    "techniques/compression/quantization/ways.py": "tests/.../test_artifact.py: every way is ordered there",
    "techniques/inference/caching/semantic/neighbour.py": "two records: tests/.../test_policy.py makes and reads them",
    "testing/chat.py": "it says what tests/serving/chat read",
    "testing/scripted.py": "it is the bench of tests/optimize",
    "testing/strategies.py": "it draws the examples of tests/core/test_documents.py",
    "testing/word_service.py": "it is the service of tests/assembly/test_semantic.py",
    "testing/tiny_service.py": "it is the service of tests/assembly and tests/e2e",
}
"""Modules without a mirror file, and where their behaviour is tested instead."""


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git checkout: there is no list of tracked files")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_imports_point_inward():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def is_only_reexport(path: Path) -> bool:
    nodes = ast.parse(path.read_text()).body
    return path.name == "__init__.py" and not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes)


def test_every_module_has_a_mirror():
    missing = []
    for path in MODULES:
        name = name_of(path)
        mirror = TESTS / Path(name).with_name(f"test_{path.name}")
        if not is_only_reexport(path) and not mirror.exists() and name not in TESTED_ELSEWHERE:
            missing.append(name)
    assert missing == []


def test_the_exceptions_are_still_needed():
    for name in TESTED_ELSEWHERE:
        assert (SOURCE / name).exists(), name
        assert not (TESTS / Path(name).with_name(f"test_{Path(name).name}")).exists(), name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_fit_on_a_screen_or_two(path):
    text = path.read_text()
    most = 100 if path.parent.name == "levers" else 400
    assert len(text.splitlines()) <= most
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
            length = node.end_lineno - node.lineno + 1 - docstring
            assert length <= 60, f"{node.name} has {length} lines"


ROOMS = sorted(
    path.parent.relative_to(SOURCE).as_posix().replace("/", ".")
    for path in MODULES
    if path.name == "__init__.py" and path.parent.name != "cli"
)
"""Every package but the command line, which is no library."""


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_exports_what_it_lists(room):
    module = import_module("halve" if room == "." else f"halve.{room}")
    if not hasattr(module, "__all__"):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module.startswith("halve")]
        return
    names = module.__all__
    assert len(set(names)) == len(names)
    assert all(getattr(module, name) is not None for name in names)
    if room != ".":  # its names load on first use
        imported = [
            alias.asname or alias.name
            for node in ast.parse(Path(str(module.__file__)).read_text()).body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"halve.{room}.")
            for alias in node.names
        ]
        assert set(imported) <= set(names), "imported from inside the room, and not listed"


def test_importing_halve_loads_nothing_heavy():
    code = "import sys, halve; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    heavy = {"torch", "onnx", "onnxruntime", "numba", "numpy", "scipy", "pyarrow", "pydantic", "yaml", "rich", "click"}
    assert "halve" in loaded
    assert not heavy & loaded
    assert not [name for name in loaded if name.startswith("halve.")]


def test_the_verb_stays_a_function_when_its_room_is_imported():
    code = (
        "import halve, halve.optimize\nfrom halve.optimize import Optimizer\n"
        "assert callable(halve.optimize) and callable(Optimizer)\nassert sorted(halve.__all__) == halve.__all__\n"
        "print([callable(getattr(halve, name)) for name in halve.__all__ if name != '__version__'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([True] * 7), done.stderr


RAISE_WHEN_WRONG = {"raises", "fail", "validate", "end", "bind", "accepted", "check"}
"""Calls that fail a test by themselves: pytest's, a schema's, a signature's, and helpers that refuse."""


def test_no_test_is_without_an_assertion():
    empty = []
    for path in sorted(TESTS.rglob("test_*.py")):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        helpers = {node.name for node in functions if not node.name.startswith("test_") and _asserts(node, set())}
        empty += [
            f"{path.relative_to(TESTS)}: {node.name}"
            for node in functions
            if node.name.startswith("test_") and not _asserts(node, helpers)
        ]
    assert empty == []


def _asserts(function: ast.FunctionDef, helpers: set[str]) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in helpers or called in RAISE_WHEN_WRONG or "assert" in called or called.startswith("check_"):
                return True
    return False


# In two parts each, so that this file passes its own test.
FORBIDDEN = (
    "/wor" + "k/",
    "/tmp/" + "env",
    "artifact" + "ory",
    "files.python" + "hosted.org",
    "--index" + "-url",
    "extra-" + "index",
)


def test_no_file_names_a_machine_or_a_package_index():
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert found == []

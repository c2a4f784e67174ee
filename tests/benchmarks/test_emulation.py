"""A script runs on the emulated processor, and its failures are told."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "emulation.py"


@pytest.fixture(scope="module")
def emulation():
    spec = importlib.util.spec_from_file_location("benchmarks_emulation", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def run_emulated(emulation):
    reason = emulation.why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    return emulation.run_emulated


def test_numpy_sees_a_processor_without_avx512(run_emulated):
    code = "import numpy as np; print(np.show_config(mode='dicts')['SIMD Extensions']['not found'])"
    assert "AVX512" in run_emulated(code)


def test_a_script_gets_its_arguments_and_can_import_benchmarks(run_emulated, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, benchmarks\nprint(sys.argv[1:])\n")
    assert run_emulated(script, "a", "b c") == "['a', 'b c']\n"


def test_what_fails_says_why(emulation, run_emulated):
    with pytest.raises(emulation.EmulationError, match=r"ended with 1:\n(.|\n)*ZeroDivisionError"):
        run_emulated("1 / 0")
    with pytest.raises(emulation.EmulationError, match=r"took more than 0.5 s"):
        run_emulated("import time; time.sleep(60)", timeout_seconds=0.5)


@pytest.mark.parametrize(
    ("platform", "machine", "program", "said"),
    [
        ("darwin", "arm64", None, "emulation needs Linux on x86-64, this is darwin on arm64"),
        ("linux", "x86_64", None, "emulation needs qemu-x86_64: apt-get install qemu-user"),
        ("linux", "x86_64", "echo qemu-x86_64 version 6.2.0", "emulating AVX2 needs qemu-x86_64 7.2 or later"),
        ("linux", "x86_64", "echo qemu-x86_64 version 10.0.2", None),
    ],
)
def test_the_reason_is_a_sentence(emulation, monkeypatch, tmp_path, platform, machine, program, said):
    monkeypatch.setattr(emulation.sys, "platform", platform)
    monkeypatch.setattr(emulation.platform, "machine", lambda: machine)
    monkeypatch.setenv("PATH", str(tmp_path))
    if program is not None:
        path = tmp_path / "qemu-x86_64"
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(0o755)
    reason = emulation.why_unavailable()
    assert reason is None if said is None else reason.startswith(said)
    if said is not None:
        with pytest.raises(emulation.EmulationError, match=r"^emulat"):
            emulation.run_emulated("")

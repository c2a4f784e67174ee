"""`main` turns whatever a command ends with into a sentence and an exit code; tried with commands of our own."""

import os
import signal
import subprocess
import sys

import pytest

TEMPLATE = """
import sys, types
import click
import halve.cli as cli
from halve.cli.options import Command, debug_option
from halve.errors import *

@click.command(cls=Command, examples=("a", "b"))
@debug_option
def command():
    {body}

module = types.ModuleType("halve.cli.probe")
module.command = command
sys.modules["halve.cli.probe"] = module
cli.COMMANDS = (*cli.COMMANDS, "probe")
cli.main(["probe", *sys.argv[1:]])
"""


def end_with(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = TEMPLATE.format(body=body)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return 0", 0, ""),
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise UserError('mend it')", 1, "error: mend it\n"),
        (
            "raise InvalidParameterError('seed', rule='at least 0', value=-1)",
            1,
            "error: seed must be at least 0. Got -1.\n",
        ),
        ("raise NothingPassedError('nothing passed')", 3, "nothing passed\n"),
        ("raise StorageError('the disk is full')", 4, "error: the disk is full\n"),
        ("raise OSError(28, 'No space left on device')", 4, "error: [Errno 28] No space left on device\n"),
        ("raise MemoryError()", 4, "error: MemoryError\n"),
        (
            "raise KeyboardInterrupt",
            130,
            "stopped; what was measured is kept, run the same command again to resume\n",
        ),
    ],
)
def test_each_ending_has_its_code_and_its_line(body, code, message):
    done = end_with(body)
    assert (done.returncode, done.stderr, done.stdout) == (code, message, "")


def test_our_own_bug_is_told_without_a_traceback():
    done = end_with("1 / 0")
    assert done.returncode == 4
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "--debug" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in end_with("1 / 0", "--debug").stderr


def test_a_reader_that_leaves_early_is_not_an_error():
    body = "[click.echo('x' * 1000) for _ in range(10_000)]"
    with subprocess.Popen(
        [sys.executable, "-c", TEMPLATE.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_ctrl_c_stops_with_one_line():
    body = "import time; print('started', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", TEMPLATE.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "stopped; what was measured is kept, run the same command again to resume\n"

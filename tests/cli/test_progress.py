import contextlib
import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from halve.cli.progress import LONG_SECONDS, Bars, Lines, progress


def test_short_tasks_leave_no_line():
    stream = io.StringIO()
    with Lines(stream).task("quick", total=3) as advance:
        advance()
        advance(2)
    assert stream.getvalue() == ""


def test_long_tasks_are_announced_and_finished():
    stream = io.StringIO()
    with Lines(stream).task("slow", total=1):
        time.sleep(LONG_SECONDS + 0.3)
        assert stream.getvalue() == "slow ...\n"
    announced, done = stream.getvalue().splitlines()
    assert announced == "slow ..."
    assert done.startswith("slow: done in 1.")


def test_a_task_that_fails_is_not_called_done():
    stream = io.StringIO()

    def fail() -> None:
        with Lines(stream).task("slow", total=1):
            time.sleep(LONG_SECONDS + 0.2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert "done" not in stream.getvalue()


def test_pipes_get_lines():
    assert isinstance(progress(io.StringIO()), Lines)


def test_nested_bars_close_and_let_errors_through():
    bars = Bars()

    def fail() -> None:
        with bars.task("outer", total=2) as outer:
            with bars.task("inner", total=5) as inner:
                inner(5)
            outer()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    with bars.task("again", total=1) as advance:
        advance()


def test_a_terminal_gets_bars_on_stderr_only():
    code = (
        "from halve.cli.progress import progress\nimport time\n"
        "with progress().task('measuring [teacher]', total=4) as advance:\n"
        "    for _ in range(4):\n        time.sleep(0.1); advance()\n"
        "print('result')\n"
    )
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, env=environment, text=True
    ) as process:
        os.close(slave)
        shown = b"".join(chunks(master)).decode()
        assert process.stdout.read() == "result\n"
    os.close(master)
    assert "measuring [teacher]" in shown
    assert "4/4" in shown


def chunks(descriptor: int) -> Iterator[bytes]:
    """Yield what a terminal shows until its program ends, which Linux tells with an input/output error."""
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 4096):
            yield chunk

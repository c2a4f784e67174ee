"""Progress on stderr: bars in a terminal; elsewhere a plain line after a second, and one when the task is done."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from halve.core import Advance, Progress

LONG_SECONDS = 1.0
"""Tasks shorter than this leave no line behind."""


def progress(stream: TextIO | None = None) -> "Progress":
    """Return the progress that suits a stream, stderr by default."""
    stream = sys.stderr if stream is None else stream
    return Bars() if stream is sys.stderr and stream.isatty() else Lines(stream)


class Lines:
    """Plain lines, for logs and pipes. Tasks may nest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def task(self, description: str, *, total: int) -> Iterator["Advance"]:
        """Announce the task if it takes over a second, and say how long it took if it did."""
        started = time.monotonic()
        announcement = threading.Timer(LONG_SECONDS, self._say, [f"{description} ..."])
        announcement.daemon = True
        announcement.start()
        try:
            yield _ignore
        finally:
            announcement.cancel()
        took = time.monotonic() - started
        if took >= LONG_SECONDS:
            self._say(f"{description}: done in {took:.1f} s")

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _ignore(steps: int = 1) -> None:
    """Plain lines show no steps."""


class Bars:
    """Bars on stderr that disappear when done; long tasks leave a line. Tasks may nest."""

    def __init__(self) -> None:
        self._open = 0
        self._bars: RichProgress | None = None

    @contextmanager
    def task(self, description: str, *, total: int) -> Iterator["Advance"]:
        """Show a bar of `total` steps while the context is open."""
        started = time.monotonic()
        bars = self._enter()
        bar = bars.add_task(description, total=total)

        def advance(steps: int = 1) -> None:
            bars.advance(bar, steps)

        try:
            yield advance
            bars.refresh()
            took = time.monotonic() - started
            if took >= LONG_SECONDS:
                bars.console.print(f"{description}: {took:.1f} s", style="dim", markup=False, highlight=False)
        finally:
            bars.remove_task(bar)
            self._leave()

    def _enter(self) -> "RichProgress":
        self._open += 1
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        return self._bars

    def _leave(self) -> None:
        self._open -= 1
        if self._open == 0 and self._bars is not None:
            self._bars.stop()
            self._bars = None


def _new_bars() -> "RichProgress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    description = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
    return Progress(
        description,
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )

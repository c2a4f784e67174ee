"""A server as a process of its own: pinned before its first thread starts, waited for, always ended."""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, final

from halve.errors import ReplayError

POLL_SECONDS = 0.02
STOP_SECONDS = 40.0
TAIL_BYTES = 2000

_PIN_AND_RUN = (
    "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); os.execvp(sys.argv[2], sys.argv[2:])"
)
"""Run before the server's interpreter, so that every thread it starts inherits the cores."""


@dataclass(frozen=True, kw_only=True)
class CorePlan:
    """Which cores the server and the load generator get; empty means not pinned.

    Args:
        server_cores: All usable cores but one.
        client_cores: The last usable core.
        note: Why nothing is pinned; "" if it is.
    """

    server_cores: tuple[int, ...] = ()
    client_cores: tuple[int, ...] = ()
    note: str = ""


def plan_cores() -> CorePlan:
    """Share this process's cores between a server and a load generator."""
    if not hasattr(os, "sched_setaffinity"):
        return CorePlan(note=f"not pinned: {sys.platform} has no processor affinity")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return CorePlan(note="not pinned: server and load generator share the only core")
    return CorePlan(server_cores=tuple(cores[:-1]), client_cores=(cores[-1],))


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Run the calling thread, and threads it starts, on these cores; nothing happens for none."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@final
class ServerProcess:
    """A running server.

    Args:
        process: The process.
        url: Where it answers.
        output: What it printed.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", *, url: str, output: IO[bytes]) -> None:
        import psutil

        self._process, self.url, self._output = process, url, output
        self._watched = psutil.Process(process.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the user and system seconds it used so far, its children included.

        Raises:
            ReplayError: If it is gone.
        """
        import psutil

        try:
            family = [self._watched, *self._watched.children(recursive=True)]
            times = [member.cpu_times() for member in family]
        except psutil.NoSuchProcess:
            raise ReplayError(f"the server must be running. It ended: {self.output_tail()}") from None
        return float(sum(used.user + used.system for used in times))

    def output_tail(self) -> str:
        """Return the end of what it printed, on one line."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - TAIL_BYTES))
        text = self._output.read().decode(errors="replace")
        return " | ".join(line for line in text.splitlines() if line.strip()) or "it printed nothing"

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Poll `/v2/health/ready` until it answers 200.

        Raises:
            ReplayError: If the process ends, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not _is_ready(self.url):
            if self._process.poll() is not None:
                code = self._process.returncode
                raise ReplayError(f"the server ended with code {code} before it was ready: {self.output_tail()}")
            if time.monotonic() > deadline:
                raise ReplayError(
                    f"the server must be ready within {timeout_seconds} s. It was not: {self.output_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def end(self) -> int:
        """Ask it to stop, make it stop if it does not, and return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()


@contextmanager
def server_process(
    argv: Sequence[str],
    *,
    url: str,
    env: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
    ready_timeout_seconds: float = 120.0,
) -> Iterator[ServerProcess]:
    """Start a server, wait until it is ready, and end it whatever happens.

    Args:
        argv: Program and arguments.
        url: `http://host:port` where it will answer; `free_port` finds a port.
        env: Its whole environment; None inherits ours.
        cores: Cores it may use, from its first instruction; none means all.
        ready_timeout_seconds: How long loading may take.

    Raises:
        ReplayError: If it cannot be started, dies, or is not ready in time; with the end of what it printed.
    """
    command = list(argv)
    if cores:
        command = [sys.executable, "-I", "-S", "-c", _PIN_AND_RUN, ",".join(map(str, cores)), *command]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
            )
        except OSError as error:
            raise ReplayError(f"the server could not be started: {error}") from error
        server = ServerProcess(process, url=url, output=output)
        try:
            server.wait_until_ready(ready_timeout_seconds)
            yield server
        finally:
            server.end()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that was free a moment ago."""
    import socket

    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _is_ready(url: str) -> bool:
    # Not urllib: it would ask the user's HTTP proxy.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=1.0)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

"""Our side: start a peer's process in its environment, ask it, and give up on it when it takes too long."""

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._peers.environments import FOLDER, PeerError

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TORCHINDUCTOR_FREEZING": "1",
}
"""One thread, no network, no telemetry."""


class Worker:
    """A process that serves `benchmarks._peers.MODULE`; use it as a context manager.

    Args:
        python: The interpreter of its environment.
        module: The runner, such as `onnxruntime`.
        prefix: What to put before the interpreter, such as an emulator of another processor.
    """

    def __init__(self, *, python: Path, module: str, prefix: Sequence[str] = ()) -> None:
        self.module = module
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._rest = b""
        self._process = subprocess.Popen(
            [*prefix, str(python), "-m", f"benchmarks._peers.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            cwd=ROOT,
            env={**os.environ, **SETTINGS, "HOME": str(_home())},
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, *, timeout_seconds: float, **arguments: object) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            PeerError: If the peer failed, ended, or took too long; in the last two cases it is stopped.
        """
        request = json.dumps({"do": do, **arguments}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request.encode())
        except BrokenPipeError:
            raise PeerError(f"{self.module} ended: {self._last_words()}") from None
        reply: dict[str, Any] = json.loads(self._line(do, timeout_seconds))
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _line(self, do: str, timeout_seconds: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], timeout_seconds)
            if not ready:
                self._process.kill()
                raise PeerError(f"{self.module} did not finish '{do}' within {timeout_seconds:g} s")
            part = self._process.stdout.read(1 << 16)
            if not part:
                raise PeerError(f"{self.module} ended during '{do}': {self._last_words()}")
            self._rest += part
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else "no message"


def _home() -> Path:
    """Return a home folder of the peers' own, in which OpenVINO finds that telemetry was declined."""
    home = FOLDER / "home"
    consent = home / "intel" / "openvino_telemetry"
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0")
    return home

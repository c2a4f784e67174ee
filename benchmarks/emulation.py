"""Python on a processor that this host does not have: AVX2 without VNNI, emulated by QEMU's user mode.

Answers are those of the real processor, because QEMU computes each instruction exactly, VPMADDUBSW's
saturation included, and onnxruntime chooses its kernels by the emulated CPUID. Seconds mean nothing: every
instruction is translated, so code runs some 10 to 50 times slower. Measure errors here, never speed.

Two traps. /proc/cpuinfo is passed through and still tells of the real processor. A child process runs natively:
a script that starts another interpreter measures the host with it.

Needs the program `qemu-x86_64`, version 7.2 or later (package `qemu-user` of Debian and Ubuntu), on x86-64 Linux.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = "qemu-x86_64"

FIRST_VERSION_WITH_AVX2 = (7, 2)

AVX2_WITHOUT_VNNI = "Haswell-v4,-pcid,-x2apic,-tsc-deadline,-invpcid,-spec-ctrl"
"""Intel Haswell: AVX2 and FMA, no AVX-512, no VNNI. Less what the emulator would warn that it leaves out."""


class EmulationError(RuntimeError):
    """The emulated script failed; holds the end of what it wrote to stderr."""


def why_unavailable() -> str | None:
    """Return why nothing can be emulated here, in one sentence; None if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"emulation needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    program = shutil.which(PROGRAM)
    if program is None:
        return f"emulation needs {PROGRAM}: apt-get install qemu-user"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None or tuple(map(int, found.groups())) < FIRST_VERSION_WITH_AVX2:
        return f"emulating AVX2 needs {PROGRAM} 7.2 or later, this one says {said.splitlines()[:1]}"
    return None


def run_emulated(
    script: Path | str,
    *arguments: str,
    cpu: str = AVX2_WITHOUT_VNNI,
    timeout_seconds: float = 600,
    import_from: Sequence[Path] = (ROOT,),
) -> str:
    """Run a Python script with this interpreter on an emulated processor; return what it printed.

    Args:
        script: A path, or the program text itself.
        arguments: The script's sys.argv[1:].
        cpu: Model and flags for `qemu-x86_64 -cpu`.
        timeout_seconds: Wall time after which the script is ended.
        import_from: Folders put before PYTHONPATH, so that `benchmarks` can be imported.

    Raises:
        EmulationError: If emulation is not possible here, or the script fails or takes too long.
    """
    reason = why_unavailable()
    if reason is not None:
        raise EmulationError(reason)
    program = [str(script)] if isinstance(script, Path) else ["-c", script]
    paths = [*map(str, import_from), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [PROGRAM, "-cpu", cpu, sys.executable, *program, *arguments]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise EmulationError(f"the emulated script took more than {timeout_seconds:g} s") from None
    if done.returncode != 0:
        raise EmulationError(f"the emulated script ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout

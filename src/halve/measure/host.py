"""What machine and which versions stand behind a measurement."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from halve.core import Host

PACKAGES = ("halve", "numpy", "scipy", "numba", "onnxruntime", "openvino", "torch", "uvicorn")
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp")


def describe_host(packages: Sequence[str] = PACKAGES) -> Host:
    """Return this machine: processor, cores we may use, memory, instruction sets, package versions."""
    import psutil

    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Host(
        processor=fields.get("model name") or platform.processor() or platform.machine(),
        cpu_count=usable_cores(),
        memory_bytes=int(psutil.virtual_memory().total),
        instruction_sets=tuple(name for name in _INSTRUCTION_SETS if name in flags),
        versions={"python": platform.python_version(), **_versions(packages)},
    )


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    # Only Linux has the file; elsewhere the platform module names the processor.
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", maxsplit=1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

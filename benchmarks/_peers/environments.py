"""One virtual environment per peer: made on first use, versions pinned, kept in `~/.cache/halve-benchmarks`.

Peers contradict each other's requirements, and none of them may change what halve itself runs on.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

FOLDER = Path.home() / ".cache" / "halve-benchmarks"

TORCH = ("torch==2.13.0", "numpy==2.4.6", "safetensors==0.8.0")
"""Pinned, because a newer torch may bring gigabytes of CUDA."""

NETWORKS = ("transformers==5.23.0", "efficientnet_lite_pytorch==0.1.0")
"""The code of the networks under test."""

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime==1.32.0", "onnx==1.23.2", "onnx-ir==1.1.0", "sympy==1.14.0", *TORCH),
    "openvino": ("openvino==2026.4.1", "nncf==3.4.0", "onnx==1.23.2"),
    "torchao": ("torchao==0.18.0", *TORCH, *NETWORKS),
    "quanto": ("optimum-quanto==0.2.7", "ninja", *TORCH, *NETWORKS),
    "auto-round": ("auto-round==0.16.1", *TORCH, *NETWORKS),
    "brevitas": ("brevitas==0.13.4", *TORCH, *NETWORKS),
    "brevitas-onnx": (
        "brevitas==0.13.4",
        "onnx==1.23.2",
        "onnxruntime==1.32.0",
        "onnxscript==0.7.2",
        "onnxoptimizer",
        *TORCH,
    ),
    "gptcache": ("gptcache==0.1.44", "faiss-cpu==1.15.1", "sqlalchemy==2.0.43", "numpy==2.4.6"),
    "neural-compressor": ("neural-compressor-pt==3.10", "torchao==0.18.0", *TORCH),
}
"""What is installed for each peer."""


class PeerError(Exception):
    """A peer could not be installed, started or asked; the message says why."""


def python_of(peer: str, *, log: Callable[[str], None]) -> Path:
    """Return the interpreter of the peer's environment, made first if it is not there.

    Args:
        peer: A key of REQUIREMENTS.
        log: Takes a line of progress.

    Raises:
        PeerError: If pip fails; the half-made environment is removed.
    """
    requirements = REQUIREMENTS[peer]
    digest = hashlib.sha256(repr((requirements, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = FOLDER / f"{peer}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file():
        return python
    log(f"installing {peer}: {' '.join(requirements)}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise PeerError(f"pip could not install {peer}: {_last_error(done.stderr)}")
    ready.write_text("\n".join(requirements) + "\n")
    return python


def _last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[-1]


def unpacked(requirement: str, *, log: Callable[[str], None]) -> Path:
    """Return a folder that holds one pinned package without its dependencies, for its data or pure Python code.

    Raises:
        PeerError: If pip fails.
    """
    folder = FOLDER / "packages" / requirement.replace("==", "-")
    if (folder / "ready").is_file():
        return folder
    log(f"fetching {requirement}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--upgrade", "--target", str(folder), requirement], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PeerError(f"pip could not fetch {requirement}: {_last_error(done.stderr)}")
    (folder / "ready").touch()
    return folder

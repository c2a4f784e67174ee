"""Our side: run a job in its tool's environment, once; the answer is kept in HALVE_CACHE by a hash of all it read."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._peers.client import SETTINGS
from benchmarks._peers.environments import REQUIREMENTS, PeerError, python_of
from halve.core.documents import replace_file
from halve.demo.training import cache_folder

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
OURS = ROOT / "src" / "halve" / "techniques" / "compression" / "quantization" / "training"

READS = {
    "ours": ("network",),
    "brevitas": ("network",),
    "torchao": ("network",),
    "nncf": ("searching",),
    "neural_compressor": ("network", "searching"),
}
"""Which files of this folder each runner imports: its answers depend on them."""

Arrays = dict[str, np.ndarray[Any, Any]]


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ask(peer: str, module: str, job: Mapping[str, Any], *, files: Mapping[str, Path], limit_seconds: float) -> Arrays:
    """Return the arrays that `benchmarks._peers_training.MODULE` answers.

    Args:
        peer: Whose environment, a key of REQUIREMENTS, or `halve` for our own.
        module: The runner.
        job: What to do, as JSON.
        files: Inputs by name; the hash is of their bytes.
        limit_seconds: After which the job is given up.

    Raises:
        PeerError: If the environment cannot be made, or the job fails or takes too long.
    """
    sources = [FOLDER / f"{name}.py" for name in (module, *READS[module])]
    sources += sorted(OURS.rglob("*.py")) if peer == "halve" else []
    identity = {
        "job": dict(job),
        "files": {name: file_hash(path) for name, path in files.items()},
        "sources": [file_hash(path) for path in sources],
        "requirements": REQUIREMENTS.get(peer),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache_folder() / "peers" / f"{module}-{digest}.npz"
    if not kept.is_file():
        python = Path(sys.executable) if peer == "halve" else python_of(peer, log=log)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            request = {**job, "files": {name: str(path) for name, path in files.items()}}
            Path(folder, "job.json").write_text(json.dumps(request))
            _run([str(python), "-m", f"benchmarks._peers_training.{module}", folder], limit_seconds, name=module)
            with replace_file(kept) as partial:
                partial.write_bytes(Path(folder, "answer.npz").read_bytes())
    with np.load(kept) as answer:
        return dict(answer)


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(command: list[str], limit_seconds: float, *, name: str) -> None:
    settings = {**os.environ, **SETTINGS}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=limit_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{name} took more than {limit_seconds:g} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise PeerError(f"{name} failed: {(lines or ['no message'])[-1][:300]}")

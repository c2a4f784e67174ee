"""BARGAIN (PyPI `bargain` 0.1.3): guaranteed accuracy against the strong model's answers, one cheap model before it.

It is a batch method: it gets the test questions themselves, samples strong calls among them, and pays for these. It
needs no calibration part; ours gives it the cheap model that pays most and that model's scorer.
Its accuracy is the share of answers that are right by the oracle's judgement; here an answer is right if it scores
at least what the strong model's does, so that 1 - m of them keep the promise of a drop of at most m.

Source: Zeighami, Shankar & Parameswaran 2025, arXiv:2509.02896.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cascade.chains import Scorers
from benchmarks._cascade.recorded import ROOT, Array, Recorded
from benchmarks._cascade.splits import CONFIDENCE, Choice, Rows, Split
from benchmarks._peers.environments import PeerError, unpacked
from halve.techniques.inference.cascading.chain_search import chain_points, cheapest

REQUIREMENT = "bargain==0.1.3"
LIMIT_SECONDS = 1500


@dataclass(frozen=True)
class Job:
    """One run of the peer on the test rows of one split."""

    proxy: int
    rows: Rows
    sure: Array
    enough: Any
    margin: float
    seed: int

    def document(self) -> dict[str, Any]:
        sure, enough = self.sure.tolist(), self.enough.astype(int).tolist()
        return {"sure": sure, "enough": enough, "target": 1 - self.margin, "delta": 1 - CONFIDENCE, "seed": self.seed}


def job(recorded: Recorded, part: Split, margin: float, scorers: Scorers, seed: int) -> Job | None:
    """Return the run with the cheap model that pays most in front of the strong one on the search rows."""
    strong = recorded.strong
    best: tuple[float, int] | None = None
    for place in scorers.pool:
        if place == strong:
            continue
        table = scorers.table_of((place, strong))
        found = cheapest(
            [chain_points(table, strong_scores=recorded.scores[strong, part.search])], quality_drop_at_most=margin
        )
        if found is not None and (best is None or found.usd_per_request < best[0]):
            best = found.usd_per_request, place
    if best is None:
        return None
    proxy = best[1]
    enough = recorded.scores[proxy, part.test] >= recorded.scores[strong, part.test]
    return Job(proxy, part.test, scorers.sure((proxy,), part.test), enough, margin, seed)


def choices(recorded: Recorded, jobs: Sequence[Job], *, log: Callable[[str], None]) -> list[Choice]:
    """Return what BARGAIN did in each job.

    Raises:
        PeerError: If it could not be fetched or failed.
    """
    used = _asked([one.document() for one in jobs], log=log)
    strong, found = recorded.strong, []
    for one, dear in zip(jobs, used, strict=True):
        asked = np.array(dear)
        scores = np.where(asked, recorded.scores[strong, one.rows], recorded.scores[one.proxy, one.rows])
        usd = recorded.usd[one.proxy, one.rows] + np.where(asked, recorded.usd[strong, one.rows], 0.0)
        drop = float((recorded.scores[strong, one.rows] - scores).mean())
        found.append(Choice(usd=float(usd.mean()), drop=drop, label=recorded.answerers[one.proxy]))
    return found


def _asked(jobs: list[dict[str, Any]], *, log: Callable[[str], None]) -> list[list[bool]]:
    folder = unpacked(REQUIREMENT, log=log)
    with tempfile.TemporaryDirectory() as workplace:
        given, taken = Path(workplace) / "jobs.json", Path(workplace) / "answers.json"
        given.write_text(json.dumps(jobs))
        command = [sys.executable, "-m", "benchmarks._cascade.bargain_worker", str(given), str(taken)]
        paths = os.pathsep.join((str(ROOT), str(ROOT / "src"), str(folder)))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"bargain did not finish within {LIMIT_SECONDS} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise PeerError(f"bargain failed: {lines[-1] if lines else 'no message'}")
        answers: list[list[bool]] = json.loads(taken.read_text())
    return answers

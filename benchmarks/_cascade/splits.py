"""One split of a set: questions to search on, draws that certify, and questions that nothing has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._cascade.recorded import Array, Recorded
from halve.gate import drop_upper_bound
from halve.gate.power import examples_needed

CONFIDENCE = 0.95
SEARCH_SHARE, CERTIFY_SHARE = 0.25, 0.45
"""Labelled questions, as shares of a set: where chains are chosen, and how many draws certify."""

USUAL_DISCORDANCE = 0.05
"""Share of questions that a good chain and the strong model score differently; sets the margin, from n alone."""

MARGINS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1)

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Split:
    """Rows of a set.

    Args:
        search: Where chains are chosen.
        unsearched: All others: the population that the certificate speaks of, so that the truth is known.
        certify: Drawn from it with replacement, as real requests are: independent and identically distributed.
        test: Those of it that were never drawn.
    """

    search: Rows
    unsearched: Rows
    certify: Rows
    test: Rows

    @property
    def calibration(self) -> Rows:
        """Return all labelled rows, each once."""
        return np.unique(np.concatenate([self.search, self.certify]))


def split(questions: int, seed: int, *, pool: Rows | None = None) -> Split:
    """Return the rows of one split; with a pool, only of these rows."""
    random = np.random.default_rng([seed, 77])
    rows = random.permutation(questions if pool is None else pool)
    search = round(SEARCH_SHARE * len(rows))
    unsearched = rows[search:]
    certify = random.choice(unsearched, round(CERTIFY_SHARE * len(rows)))
    return Split(search=rows[:search], unsearched=unsearched, certify=certify, test=np.setdiff1d(unsearched, certify))


def provable_margin(certify: int) -> float:
    """Return the smallest of MARGINS that this many certify questions prove with power 0.8.

    For a chain that loses nothing and differs from the strong model on 5 % of the questions. It follows from the
    number of questions alone, so nothing is chosen by looking at results.
    """
    for margin in MARGINS:
        if examples_needed(margin, confidence=CONFIDENCE, discordance=USUAL_DISCORDANCE) <= certify:
            return margin
    return MARGINS[-1]


def bound(strong: Array, chain: Array) -> float:
    """Return the gate's exact paired bound at 95 %."""
    return drop_upper_bound(strong, chain, confidence=CONFIDENCE)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one method did on the test part of one split.

    Args:
        usd: Mean USD per request.
        drop: Mean score of the strong model minus the method's.
        label: What it chose, in words.
    """

    usd: float
    drop: float
    label: str


def strong_alone(recorded: Recorded, rows: Rows) -> Choice:
    """Return what the strong model does."""
    strong = recorded.strong
    return Choice(usd=float(recorded.usd[strong, rows].mean()), drop=0.0, label=recorded.answerers[strong])


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))

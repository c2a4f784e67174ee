"""Hits, wrong hits, the best threshold on labelled look-ups, money, and intervals over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from benchmarks._common import Estimate

ANSWER_USD = 30 * 0.15e-6 + 200 * 0.60e-6
"""Of the answer that a right hit saves: 30 tokens in, 200 out, gpt-4o-mini, litellm's price list 1.109.1."""

VCPU_SECOND_USD = 0.11592 / 2 / 3600
"""m7a.large on demand, us-east-1, 2026-07-20."""

NEVER = float("inf")
"""A threshold that no score reaches."""

Scores = NDArray[np.floating]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a policy did on a stream.

    Args:
        lookups: How many there were, at least 1.
        hits: Answers served from the cache.
        wrong: Wrong ones among them.
    """

    lookups: int
    hits: int
    wrong: int

    @property
    def hit_rate(self) -> float:
        """Hits over look-ups, wrong ones included."""
        return self.hits / self.lookups

    @property
    def false_hit_share(self) -> float:
        """Wrong hits over hits; 0 without a hit."""
        return self.wrong / self.hits if self.hits else 0.0

    def net_usd_per_1k(self, *, seconds_per_lookup: float) -> float:
        """Return USD saved per 1,000 look-ups: right hits times an answer, less processor time; wrong ones save 0."""
        saved = (self.hits - self.wrong) / self.lookups * ANSWER_USD
        return 1000 * (saved - seconds_per_lookup * VCPU_SECOND_USD)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """For each look-up the one entry that a policy would serve: its score, and whether it would be right.

    Args:
        scores: (n,), higher is surer; -inf where the policy would serve nothing at any threshold.
        right: bool (n,).
    """

    scores: Scores
    right: Flags

    def served(self, threshold: float) -> Served:
        """Return what happens if scores of at least the threshold are hits."""
        return outcome(self.scores >= threshold, self.right)

    def best_threshold(self, *, most: float) -> float:
        """Return the threshold with the most hits whose share of wrong ones is at most `most` here; NEVER if none."""
        order = np.argsort(-self.scores, kind="stable")
        scores, right = self.scores[order], self.right[order]
        hits = np.arange(1, len(scores) + 1)
        is_last_of_ties = np.append(scores[1:] < scores[:-1], True)
        allowed = is_last_of_ties & np.isfinite(scores) & (np.cumsum(~right) <= most * hits)
        return float(scores[np.flatnonzero(allowed)[-1]]) if allowed.any() else NEVER


def outcome(hit: Flags, right: Flags) -> Served:
    """Return the counts of these decisions."""
    return Served(lookups=len(hit), hits=int(hit.sum()), wrong=int((hit & ~right).sum()))


def mean_interval(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds and its 95 % interval by Student's t; of one seed, the value alone."""
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    half = _half_width(numbers - mean)
    return Estimate(median=mean, low=mean - half, high=mean + half)


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Return the ratio of the means over seeds, paired, and its 95 % interval.

    r = mean(a) / mean(b); half width t * sd((a - r b) / mean(b)) / sqrt(n): the delta method.

    Args:
        ours, theirs: Of the same seeds in the same order; theirs are not all 0.
    """
    a, b = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    ratio = float(a.mean() / b.mean())
    half = _half_width((a - ratio * b) / b.mean())
    return Estimate(median=ratio, low=ratio - half, high=ratio + half)


def _half_width(residuals: NDArray[np.float64]) -> float:
    n = len(residuals)
    if n < 2:
        return 0.0
    return float(student_t.ppf(0.975, n - 1) * np.sqrt(np.square(residuals).sum() / (n - 1) / n))

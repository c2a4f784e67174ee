"""A cache whose entries learn thresholds of their own while they are asked, after vCache (arXiv 2502.03771).

Written by us from the paper. Every entry holds the similarities at which it was the nearest and whether its answer
would have been right, known only where the cache explored, that is, had the model answer anew. With L(s; t, g) = 1 /
(1 + exp(-g (s - t))) fitted by maximum likelihood, P(right | s) is at least (1 - e) L(s; t', g) where t' is the upper
end of t at confidence 1 - e. With delta the share of wrong answers that is allowed, exploring with probability tau >=
1 - delta / (1 - P) keeps the promise; the smallest tau over a grid of e is taken.

Each new entry starts with two observations, (0, wrong) and (1, right): without them, and with a fit of fewer than
MINIMUM observations, the share of wrong answers is understated many times over, as the CacheVerifier study found.
Where right and wrong similarities do not overlap, the likelihood has no maximum: any t in the gap fits as well, so
t is its middle, with the standard deviation of a uniform one, and the slope is STEEPEST.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from benchmarks._semantic_cache.figures import Served, outcome
from benchmarks._semantic_cache.streams import Cosines, Numbers, Stream

MINIMUM = 6
"""Observations, the first two included, below which an entry always explores."""

STEEPEST = 60.0
DOUBTS = np.linspace(0.005, 0.5, 60)
"""The grid of e."""
_QUANTILES = norm.ppf(1 - DOUBTS)


@dataclass
class Entry:
    """What one stored question has seen."""

    similarities: list[float] = field(default_factory=lambda: [0.0, 1.0])
    right: list[bool] = field(default_factory=lambda: [False, True])
    fitted: tuple[float, float, float] | None = None
    """Threshold, its standard deviation, slope; None if it must be fitted anew."""

    def observe(self, similarity: float, right: bool) -> None:
        """Remember what exploring showed."""
        self.similarities.append(similarity)
        self.right.append(right)
        self.fitted = None

    def exploring(self, similarity: float, delta: float) -> float:
        """Return the probability with which the model must answer anew, in [0, 1]."""
        if len(self.right) < MINIMUM:
            return 1.0
        if self.fitted is None:
            self.fitted = fit(np.array(self.similarities), np.array(self.right))
        threshold, deviation, slope = self.fitted
        sure = (1 - DOUBTS) * expit(slope * (similarity - threshold - _QUANTILES * deviation))
        return float(np.clip(1 - delta / (1 - sure), 0, 1).min())


def fit(similarities: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return threshold, its standard deviation and slope of the logistic curve of P(right | similarity).

    Args:
        similarities: float64 (n,).
        right: bool (n,); both values occur.
    """
    highest_wrong, lowest_right = similarities[~right].max(), similarities[right].min()
    if highest_wrong < lowest_right:
        gap = lowest_right - highest_wrong
        return float((highest_wrong + lowest_right) / 2), float(gap / np.sqrt(12)), STEEPEST
    inputs, target = np.column_stack([np.ones_like(similarities), similarities]), right.astype(float)
    weights = np.zeros(2)
    curvature = np.eye(2)
    for _ in range(50):
        p = expit(inputs @ weights)
        curvature = inputs.T @ (inputs * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, inputs.T @ (target - p))
        weights += np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-6:
            break
    slope = weights[1]
    if slope <= 0:
        return 1.0, 1.0, 1e-3  # Nearer is not better here: never sure.
    threshold = -weights[0] / slope
    gradient = np.array([-1.0, -threshold]) / slope
    variance = gradient @ np.linalg.inv(curvature) @ gradient
    return float(threshold), float(np.sqrt(max(variance, 0.0))), float(min(slope, STEEPEST))


def replay(stream: Stream, *, delta: float, seed: int) -> Served:
    """Return what the rule does on a stream whose contents are given: what it learns begins with the stream."""
    generator = np.random.default_rng((seed, 3))
    entries: dict[int, Entry] = {}
    hit = np.zeros(len(stream), dtype=bool)
    rows = zip(
        stream.neighbours[:, 0].tolist(), stream.cosines[:, 0].tolist(), stream.right[:, 0].tolist(), strict=True
    )
    for row, (number, cosine, right) in enumerate(rows):
        if number < 0:
            continue
        entry = entries.setdefault(number, Entry())
        hit[row] = generator.random() >= entry.exploring(cosine, delta)
        if not hit[row]:
            entry.observe(cosine, right)
    return outcome(hit, stream.right[:, 0])


def replay_own_contents(
    vectors: Cosines,
    same: Callable[[int, int], bool],
    order: Numbers,
    *,
    warm_up: int,
    capacity: int,
    delta: float,
    seed: int,
) -> Served:
    """Return what the rule does where it also decides what is stored: a question whose nearest entry was wrong.

    So entries are few, live long and see much: the regime it was made for. The least recently used one is dropped.

    Args:
        vectors: float32 (n, dimension), unit length, of all questions.
        same: Whether the second question's answer is right for the first.
        order: int64, questions as they are asked.
        warm_up: So many of them are only learned from, not counted.
        capacity: Entries kept, at least 1.
        delta: Share of wrong answers allowed.
        seed: Of exploring.
    """
    generator = np.random.default_rng((seed, 3))
    slots = np.zeros((capacity, vectors.shape[1]), dtype=np.float32)
    questions, used = np.full(capacity, -1), np.full(capacity, -1)
    entries: list[Entry] = [Entry() for _ in range(capacity)]
    hit, correct = np.zeros(len(order), dtype=bool), np.zeros(len(order), dtype=bool)
    for row, question in enumerate(order.tolist()):
        cosines = np.where(questions >= 0, slots @ vectors[question], -1)
        slot = int(cosines.argmax())
        if questions[slot] >= 0:
            correct[row] = same(question, int(questions[slot]))
            hit[row] = generator.random() >= entries[slot].exploring(float(cosines[slot]), delta)
            used[slot] = row
            if not hit[row]:
                entries[slot].observe(float(cosines[slot]), bool(correct[row]))
        if not hit[row] and not correct[row]:
            slot = int(used.argmin())
            slots[slot], questions[slot], used[slot], entries[slot] = vectors[question], question, row, Entry()
    return outcome(hit[warm_up:], correct[warm_up:])

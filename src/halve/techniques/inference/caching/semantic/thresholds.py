"""Where to set the threshold of the cache, from labelled look-ups, as a classifier's: a hit is a positive.

    TP  a right answer served          FP  a wrong answer served
    FN  a right answer not served      TN  a wrong answer not served

Precision, TP / (TP + FP), is the promise: one minus the share of wrong answers among those served. Recall,
TP / (TP + FN), is the saving. Knows probabilities and labels only, no texts.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from halve.errors import InvalidParameterError

NEVER = 2.0
"""A threshold that no probability reaches."""

GRID = (0.9999, 0.9995, *(round(step / 1000, 3) for step in (*range(999, 950, -1), *range(950, 0, -5))))
"""Thresholds that are looked at, strict first. They stand before any look-up is seen: the proof needs that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One threshold on labelled look-ups.

    Args:
        threshold: Probabilities at least this high are hits.
        true_hits: TP.
        false_hits: FP.
        missed: FN.
        right_misses: TN.
        precision_low, precision_high: Clopper-Pearson interval, each end one-sided at the curve's confidence.
    """

    threshold: float
    true_hits: int
    false_hits: int
    missed: int
    right_misses: int
    precision_low: float
    precision_high: float

    @property
    def hits(self) -> int:
        """Look-ups that are served."""
        return self.true_hits + self.false_hits

    @property
    def precision(self) -> float:
        """Share of right answers among those served, in [0, 1]; 1 if none is served."""
        return self.true_hits / self.hits if self.hits else 1.0

    @property
    def recall(self) -> float:
        """Share of servable look-ups that are served, in [0, 1]; 0 if none could be."""
        right = self.true_hits + self.missed
        return self.true_hits / right if right else 0.0

    @property
    def hit_rate(self) -> float:
        """Share of all look-ups that are served, in [0, 1]."""
        return self.hits / (self.hits + self.missed + self.right_misses)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """What a calibration says.

    Args:
        point: The chosen threshold and what it did; None: do not enable.
        reason: One clause: what is proved, or why nothing is.
        precision_at_least: What was asked for.
        confidence: Of the proof.
        look_ups: How many were seen.
    """

    point: CurvePoint | None
    reason: str
    precision_at_least: float
    confidence: float
    look_ups: int

    @property
    def threshold(self) -> float:
        """The threshold, NEVER if the cache should not be enabled."""
        return self.point.threshold if self.point else NEVER


def precision_lower_bound(right: ArrayLike, *, hits: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Return the one-sided lower bound of precision from hits, exact: Clopper & Pearson 1934, Biometrika 26(4).

    The rate p at which P(Bin(hits, p) >= right) = 1 - confidence; 0 without hits. Elementwise.

    Args:
        right: Right hits, 0..hits.
        hits: >= 0.
        confidence: In (0, 1).
    """
    k, n = np.broadcast_arrays(np.asarray(right, dtype=np.float64), np.asarray(hits, dtype=np.float64))
    low: NDArray[np.float64] = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, 1 - confidence), 0.0)
    return low


def precision_upper_bound(right: ArrayLike, *, hits: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Return the one-sided upper bound: one minus the lower bound of wrong hits; 1 without hits."""
    k, n = np.broadcast_arrays(np.asarray(right, dtype=np.float64), np.asarray(hits, dtype=np.float64))
    return 1 - precision_lower_bound(n - k, hits=n, confidence=confidence)


def precision_recall_curve(
    probabilities: ArrayLike, right: ArrayLike, *, confidence: float = 0.95, grid: tuple[float, ...] = GRID
) -> tuple[CurvePoint, ...]:
    """Return what each threshold does to labelled look-ups, strict first.

    Every interval holds alone at the confidence given; that the best-looking one of many is right at it, is not
    promised: see `choose_threshold`. O(n log n).

    Args:
        probabilities: (n,), n >= 1, in [0, 1]: what the scorer says; 0 for a look-up that found nothing or was vetoed.
        right: (n,) of bool: whether the answer it would have served is right.
        confidence: Of each end of each interval, in (0.5, 1).
        grid: Thresholds, falling.

    Raises:
        InvalidParameterError: If there is nothing, lengths differ or a value is out of range.
    """
    scores, labels = _checked(probabilities, right, confidence, grid)
    order = np.argsort(-scores, kind="stable")
    gained = np.concatenate([[0], np.cumsum(labels[order])])
    hits = np.searchsorted(-scores[order], -np.array(grid), side="right")
    true_hits = gained[hits]
    low = precision_lower_bound(true_hits, hits=hits, confidence=confidence)
    high = precision_upper_bound(true_hits, hits=hits, confidence=confidence)
    positives, n = int(gained[-1]), len(labels)
    return tuple(
        CurvePoint(
            threshold=threshold,
            true_hits=int(true),
            false_hits=int(hit - true),
            missed=positives - int(true),
            right_misses=n - positives - int(hit - true),
            precision_low=float(below),
            precision_high=float(above),
        )
        for threshold, true, hit, below, above in zip(grid, true_hits, hits, low, high, strict=True)
    )


def choose_threshold(
    probabilities: ArrayLike,
    right: ArrayLike,
    *,
    precision_at_least: float,
    confidence: float = 0.95,
    grid: tuple[float, ...] = GRID,
) -> ThresholdChoice:
    """Return the lowest threshold whose precision is proved, or "do not enable" and why.

    Thresholds of the grid are tested from strict to loose, each at the full error rate 1 - confidence; the last that
    passes before the first that fails is chosen. A false proof needs the first threshold that is too loose to pass,
    and that happens with probability at most 1 - confidence, however many are looked at: fixed-sequence testing,
    as in learn-then-test. Each test is exact: P(Bin(hits, target) >= right hits) <= 1 - confidence.

    Strict thresholds have few hits and cannot pass even if all is well. So the sequence begins where the
    probabilities alone, no label seen, make passing likeliest: at the largest sum(p - target) / sqrt(hits), of the
    thresholds with enough hits for a pass. A scorer that is far too sure of itself makes it begin too late, and
    nothing passes; it does not make a wrong threshold pass more often than stated (simulated in the tests). With
    look-ups enough that the first test does not fail by chance, a higher target gives a threshold at least as high.

    Valid if look-ups are independent, come from the traffic to be served, and neither the scorer nor the grid was
    fitted on them. What breaks it: repeats of one question, drift, choosing among scorers by their result here.

    Sources: Angelopoulos, Bates, Candes, Jordan & Lei 2021, Learn then Test, arXiv:2110.01052; Maurer, Hothorn &
    Lehmacher 1995 for fixed sequences; Clopper & Pearson 1934.

    Args:
        probabilities, right, confidence, grid: As in `precision_recall_curve`.
        precision_at_least: Target, in (0, 1).

    Raises:
        InvalidParameterError: As in `precision_recall_curve`, or if the target is out of range.
    """
    if not 0 < precision_at_least < 1:
        raise InvalidParameterError("precision_at_least", rule="in (0, 1)", value=precision_at_least)
    scores, labels = _checked(probabilities, right, confidence, grid)
    curve = precision_recall_curve(scores, labels, confidence=confidence, grid=grid)

    def said(point: CurvePoint | None, reason: str) -> ThresholdChoice:
        return ThresholdChoice(
            point=point,
            reason=reason,
            precision_at_least=precision_at_least,
            confidence=confidence,
            look_ups=len(labels),
        )

    start = _start(scores, grid, precision_at_least, confidence)
    if start is None:
        fewest = int(np.ceil(np.log(1 - confidence) / np.log(precision_at_least)))
        return said(None, f"do not enable: even {fewest} hits, all right, are needed for a proof; there are fewer")
    chosen = None
    for point in curve[start:]:
        if point.precision_low < precision_at_least:
            break
        chosen = point
    if chosen is None:
        tried = curve[start]
        return said(
            None,
            f"do not enable: at the most promising threshold, {tried.threshold:g}, {tried.true_hits} of {tried.hits} "
            f"hits are right, which proves {tried.precision_low:.3f}, not {precision_at_least:g}",
        )
    return said(
        chosen,
        f"{chosen.true_hits} of {chosen.hits} hits right: precision at least {chosen.precision_low:.3f} "
        f"with {confidence:.0%} confidence",
    )


def _start(scores: NDArray[np.float64], grid: tuple[float, ...], target: float, confidence: float) -> int | None:
    """Return where in the grid to begin, from probabilities alone; None if nowhere could anything be proved."""
    falling = -np.sort(-scores)
    hits = np.searchsorted(-falling, -np.array(grid), side="right")
    expected = np.concatenate([[0.0], np.cumsum(falling - target)])[hits]
    enough = target ** hits.astype(np.float64) <= 1 - confidence
    if not np.any(enough):
        return None
    promise = np.where(enough, expected / np.sqrt(np.maximum(hits, 1)), -np.inf)
    return int(np.argmax(promise))


def _checked(
    probabilities: ArrayLike, right: ArrayLike, confidence: float, grid: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if scores.ndim != 1 or scores.shape != labels.shape or not len(scores):
        rule = "of one length, at least 1"
        raise InvalidParameterError("probabilities and right", rule=rule, value=(scores.shape, labels.shape))
    if not np.all((scores >= 0) & (scores <= 1)):
        raise InvalidParameterError("probabilities", rule="in [0, 1]", value="some that are not")
    if not 0.5 < confidence < 1:
        raise InvalidParameterError("confidence", rule="in (0.5, 1)", value=confidence)
    if not grid or any(later >= earlier for earlier, later in pairwise(grid)):
        raise InvalidParameterError("grid", rule="falling thresholds, at least 1", value=grid[:5])
    return scores, labels

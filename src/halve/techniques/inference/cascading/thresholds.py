"""Where to set the threshold of a cheap first stage, from recorded answers. Runs no model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.confidence import RULES, ConfidenceRule, confidence

NEVER = 2.0
"""A threshold that no confidence reaches."""

LEAST_GAP = 1e-6
"""Confidences closer than this count as equal: float32 models differ by as much between batch sizes."""

SHARES_OF_THE_BUDGET = (0.15, 0.3, 0.5, 0.75, 1.0)
"""How much of the promised drop a setting may spend, as its upper bound on the recorded examples. A threshold that was
chosen there looks better there than it is: cautious ones stand ready for when a bold one does not pass the
certificate, and win where a fleet cannot get smaller anyway."""

_MOST_POINTS = 200
_ROUNDING = 1e-12

Scores = NDArray[np.float64]
UpperBound = Callable[[Scores, Scores], float]
"""Upper confidence bound of the mean of (baseline - candidate), from paired scores."""


@dataclass(frozen=True, kw_only=True)
class ThresholdPoint:
    """One setting of the first stage, on the recorded examples.

    Args:
        rule: How confidence is computed.
        threshold: Answers at least this sure stand.
        accept_share: Share of examples that the cheap model answers, in [0, 1].
        cascade_quality: Mean score of the cascade.
        quality_drop: Mean score of the dear model minus that; negative is a gain.
    """

    rule: ConfidenceRule
    threshold: float
    accept_share: float
    cascade_quality: float
    quality_drop: float


def threshold_curve(
    *,
    cheap_probabilities: NDArray[np.floating],
    cheap_scores: Scores,
    dear_scores: Scores,
    rule: ConfidenceRule,
) -> tuple[ThresholdPoint, ...]:
    """Return quality against share accepted, from accepting everything to accepting nothing.

    One sort by confidence, then cumulative sums: O(n log n). A threshold lies between two confidences at least
    LEAST_GAP apart, half-way or nearly (the shortest decimal in the middle half), so that rounding noise flips no
    decision. Of many, the one in the widest gap is kept in each of 200 equal slices. A model that is equally
    sure of everything, or has one class, leaves only the two ends: threshold 0 and NEVER.

    Args:
        cheap_probabilities: (n, k), n >= 1, rows sum to 1.
        cheap_scores, dear_scores: float64 (n,), of the same examples in the same order.
        rule: How confidence is computed.

    Returns:
        At most 202 points, by falling accept share, thresholds rising.

    Raises:
        InvalidParameterError: If lengths differ or are 0, a score is NaN or infinite, or as in `confidence`.
    """
    sure = confidence(cheap_probabilities, rule)
    _check_scores(len(sure), cheap_scores, dear_scores)
    order = np.argsort(-sure, kind="stable")
    sure, gained = sure[order], np.cumsum((cheap_scores - dear_scores)[order])
    dear_quality, n = float(np.mean(dear_scores)), len(sure)

    def point(accepts: int, threshold: float) -> ThresholdPoint:
        change = float(gained[accepts - 1]) / n if accepts else 0.0
        return ThresholdPoint(
            rule=rule,
            threshold=threshold,
            accept_share=accepts / n,
            cascade_quality=dear_quality + change,
            quality_drop=-change,
        )

    inner = [point(int(cut), _between(float(sure[cut]), float(sure[cut - 1]))) for cut in _cuts(sure)]
    return (point(n, 0.0), *reversed(inner), point(0, NEVER))


def choose_threshold(
    *,
    cheap_probabilities: NDArray[np.floating],
    cheap_scores: Scores,
    dear_scores: Scores,
    quality_drop_at_most: float,
    upper_bound: UpperBound,
) -> ThresholdPoint | None:
    """Return the setting that accepts most, over all rules, while its drop is at most the promise.

    Points are tried by falling accept share; the first whose `upper_bound(dear_scores, cascade_scores)` is at
    most `quality_drop_at_most` wins. Points whose observed drop is already more are skipped unasked. The winner
    is the best of hundreds on these examples, so its quality is flattered: only others can prove it.

    Args:
        cheap_probabilities, cheap_scores, dear_scores: As in `threshold_curve`.
        quality_drop_at_most: In score units.
        upper_bound: Called with float64 (n,) arrays, at most once per point.

    Returns:
        None if no threshold that accepts anything passes.
    """
    curves = [
        threshold_curve(
            cheap_probabilities=cheap_probabilities, cheap_scores=cheap_scores, dear_scores=dear_scores, rule=rule
        )
        for rule in RULES
    ]
    sure = {rule: confidence(cheap_probabilities, rule) for rule in RULES}
    points = [
        point
        for curve in curves
        for point in curve
        if point.accept_share > 0 and point.quality_drop <= quality_drop_at_most + _ROUNDING
    ]
    for point in sorted(points, key=lambda point: -point.accept_share):
        scores = np.where(sure[point.rule] >= point.threshold, cheap_scores, dear_scores)
        if upper_bound(dear_scores, scores) <= quality_drop_at_most:
            return point
    return None


def threshold_ladder(
    *,
    cheap_probabilities: NDArray[np.floating],
    cheap_scores: Scores,
    dear_scores: Scores,
    quality_drop_at_most: float,
    upper_bound: UpperBound,
) -> Iterator[ThresholdPoint]:
    """Yield different settings that spend more and more of the promise, cautious first; see `choose_threshold`.

    Arguments and errors as in `choose_threshold`.
    """
    seen: set[tuple[str, float]] = set()
    for share in SHARES_OF_THE_BUDGET:
        point = choose_threshold(
            cheap_probabilities=cheap_probabilities,
            cheap_scores=cheap_scores,
            dear_scores=dear_scores,
            quality_drop_at_most=quality_drop_at_most * share,
            upper_bound=upper_bound,
        )
        if point is not None and (point.rule, point.threshold) not in seen:
            seen.add((point.rule, point.threshold))
            yield point


def _cuts(sure: Scores) -> list[int]:
    """Return how many of the surest to accept at each inner threshold, rising; `sure` falls."""
    gaps = sure[:-1] - sure[1:]
    possible = np.flatnonzero(gaps >= LEAST_GAP) + 1
    slices = possible * _MOST_POINTS // (len(sure) + 1)
    widest: dict[int, int] = {}
    for cut, which in zip(possible.tolist(), slices.tolist(), strict=True):
        if which not in widest or gaps[cut - 1] > gaps[widest[which] - 1]:
            widest[which] = cut
    return list(widest.values())


def _between(low: float, high: float) -> float:
    """Return the decimal with fewest digits in the middle half of (low, high), which are LEAST_GAP apart or more."""
    quarter = (high - low) / 4
    rounded = (round((low + high) / 2, digits) for digits in count(1))
    return next(number for number in rounded if low + quarter <= number <= high - quarter)


def _check_scores(n: int, cheap_scores: Scores, dear_scores: Scores) -> None:
    lengths = (len(cheap_scores), len(dear_scores), n)
    if n == 0 or len(set(lengths)) != 1:
        rule = "as many as rows of probabilities, at least 1"
        raise InvalidParameterError("cheap_scores and dear_scores", rule=rule, value=lengths)
    if not np.all(np.isfinite(cheap_scores)) or not np.all(np.isfinite(dear_scores)):
        raise InvalidParameterError("cheap_scores and dear_scores", rule="finite", value="some that are not")

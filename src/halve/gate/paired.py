"""Paired scores of a baseline and a candidate: how much the mean dropped, and how much it can have dropped."""

from dataclasses import dataclass

import numpy as np

from halve.core import FloatArray
from halve.errors import InvalidParameterError
from halve.gate.betting import betting_p_value, betting_upper_bound
from halve.gate.exact import exact_p_value, exact_upper_bound

EXACT_METHOD = "exact paired proportions (Berger & Boos 1994)"
BETTING_METHOD = "betting (Waudby-Smith & Ramdas 2024)"


@dataclass(frozen=True, kw_only=True)
class PairedDrop:
    """The drop of a candidate against a baseline, on the same requests.

    Args:
        n: Pairs.
        baseline, candidate: Mean scores.
        drop: baseline - candidate; negative is a gain.
        upper_bound: One-sided upper bound of the drop, at the confidence asked for.
        p_value: Of "the drop is at least the margin".
        discordance: Mean squared difference; for 0/1 scores, the share of pairs that differ.
        method: Name and source of bound and p-value.
    """

    n: int
    baseline: float
    candidate: float
    drop: float
    upper_bound: float
    p_value: float
    discordance: float
    method: str


def compare(
    baseline: FloatArray, candidate: FloatArray, *, margin: float, confidence: float, is_binary: bool = True
) -> PairedDrop:
    """Return the drop with its bound and p-value; arguments and errors as in `drop_upper_bound`."""
    differences = _differences(baseline, candidate, is_binary=is_binary)
    return PairedDrop(
        n=len(differences),
        baseline=float(np.mean(baseline)),
        candidate=float(np.mean(candidate)),
        drop=float(np.mean(differences)),
        upper_bound=drop_upper_bound(baseline, candidate, confidence=confidence, is_binary=is_binary),
        p_value=drop_p_value(baseline, candidate, margin=margin, is_binary=is_binary),
        discordance=float(np.mean(differences**2)),
        method=EXACT_METHOD if is_binary else BETTING_METHOD,
    )


def drop_upper_bound(
    baseline: FloatArray, candidate: FloatArray, *, confidence: float, is_binary: bool = True
) -> float:
    """Return a one-sided upper confidence bound of mean(baseline - candidate) over all requests like these.

    Exact for 0/1 scores (`exact.exact_upper_bound`), by betting for others (`betting.betting_upper_bound`); both
    hold at every n for independent, identically distributed pairs. The choice must follow from the metric, never
    from a look at the scores.

    Args:
        baseline, candidate: Scores of the same requests in the same order, float64 (n,), in [0, 1].
        confidence: In (0.5, 0.999].
        is_binary: Whether every score is 0 or 1 by definition of the metric.

    Raises:
        InvalidParameterError: If lengths differ or are 0, a score is NaN or outside [0, 1], or is neither 0 nor 1
            where it must be.
    """
    differences = _differences(baseline, candidate, is_binary=is_binary)
    if not is_binary:
        return betting_upper_bound(differences, confidence=confidence)
    losses, gains = _counts(differences)
    return exact_upper_bound(len(differences), losses=losses, gains=gains, confidence=confidence)


def drop_p_value(baseline: FloatArray, candidate: FloatArray, *, margin: float, is_binary: bool = True) -> float:
    """Return the p-value of "the mean drop is at least `margin`"; at most alpha if and only if the bound is below it.

    Arguments and errors as in `drop_upper_bound`, and `margin` in [-1, 1].
    """
    differences = _differences(baseline, candidate, is_binary=is_binary)
    if not is_binary:
        return betting_p_value(differences, margin=margin)
    losses, gains = _counts(differences)
    return exact_p_value(len(differences), losses=losses, gains=gains, margin=margin)


def drop_lower_bound(
    baseline: FloatArray, candidate: FloatArray, *, confidence: float, is_binary: bool = True
) -> float:
    """Return the one-sided lower confidence bound of the drop; arguments and errors as in `drop_upper_bound`."""
    return -drop_upper_bound(candidate, baseline, confidence=confidence, is_binary=is_binary)


def _counts(differences: FloatArray) -> tuple[int, int]:
    return int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))


def _differences(baseline: FloatArray, candidate: FloatArray, *, is_binary: bool) -> FloatArray:
    pairs = [np.asarray(scores, dtype=np.float64) for scores in (baseline, candidate)]
    if pairs[0].ndim != 1 or pairs[0].shape != pairs[1].shape or len(pairs[0]) == 0:
        shapes = (pairs[0].shape, pairs[1].shape)
        raise InvalidParameterError("scores", rule="two arrays (n,) of equal length, n >= 1", value=shapes)
    both = np.concatenate(pairs)
    wrong = (both != 0) & (both != 1) if is_binary else ~((both >= 0) & (both <= 1))
    if np.any(wrong):
        rule = "0 or 1 for the exact bound" if is_binary else "in [0, 1]"
        raise InvalidParameterError("scores", rule=rule, value=float(both[wrong][0]))
    return pairs[0] - pairs[1]

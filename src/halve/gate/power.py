"""How many examples a promise needs, and what a number of examples can show. Sees no scores."""

from functools import cache
from math import ceil, log, sqrt

import numpy as np
from scipy.special import ndtri

from halve.core import Objective
from halve.errors import InvalidParameterError, TooFewExamplesError
from halve.gate.betting import betting_p_value
from halve.gate.exact import (
    NUISANCE_LEVEL,
    ORDER_DEVIATIONS,
    check_confidence,
    clopper_pearson,
    exact_p_value,
    tail_probability,
    tail_supremum,
)

DEFAULT_POWER = 0.8
"""Chance of success that power figures speak of."""

_COARSE_CELLS = 64
_MOST_EXAMPLES = 10**8


@cache
def examples_needed(
    margin: float,
    *,
    confidence: float,
    discordance: float = 0.0,
    drop: float = 0.0,
    power: float = DEFAULT_POWER,
    is_binary: bool = True,
) -> int:
    """Return how many examples certify a drop of at most `margin`.

    With `discordance` 0: the smallest n at which a candidate that scores the same on every example passes; below
    it nothing but a lucky gain can. This is exact: the test itself is asked. Otherwise at least that, and enough
    to pass with probability `power`: from n = (z_confidence + z_power)^2 (discordance - drop^2) / (margin - drop)^2
    upwards, in steps of 2 %, until `power_to_certify` agrees. For betting there is only the formula, with
    sqrt(2 log(1 / alpha)) in place of z_confidence.

    Args:
        margin: Largest drop allowed, in (0, 1).
        confidence: In (0.5, 0.999].
        discordance: Share of pairs that differ; for scores beyond 0/1, their mean squared difference. In [0, 1].
        drop: True drop of the candidate, below `margin`.
        power: Probability to pass, in (0, 1).
        is_binary: Whether the exact bound applies, or the one by betting.

    Raises:
        InvalidParameterError: If a value is outside its range: no number of examples proves a drop of 0.
    """
    check_confidence(confidence)
    if not 0 < margin < 1:
        raise InvalidParameterError("margin", rule="in (0, 1) to be proven by examples", value=margin)
    if not drop < margin:
        raise InvalidParameterError("drop", rule=f"below the margin, {margin}", value=drop)
    least = _least_examples(margin, confidence, is_binary)
    alpha = 1 - confidence
    deviations = float(ndtri(confidence) if is_binary else sqrt(2 * log(1 / alpha))) + float(ndtri(power))
    rate = max(discordance, abs(drop))
    n = max(least, ceil(deviations**2 * (rate - drop**2) / (margin - drop) ** 2))
    while (
        is_binary
        and rate > 0
        and power_to_certify(n, discordance=rate, drop=drop, margin=margin, confidence=confidence) < power
    ):
        n += ceil(n / 50)
    return n


def _least_examples(margin: float, confidence: float, is_binary: bool) -> int:
    def passes(n: int) -> bool:
        if is_binary:
            p_value = exact_p_value(n, losses=0, gains=0, margin=margin)
        else:
            p_value = betting_p_value(np.zeros(n), margin=margin)
        return p_value <= 1 - confidence

    low, high = 0, 1
    while not passes(high):
        low, high = high, 2 * high
        if high > _MOST_EXAMPLES:
            raise InvalidParameterError("margin", rule="provable with 100 million examples", value=margin)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def require_enough_examples(n: int, objective: Objective, *, is_binary: bool = True) -> None:
    """Raise unless n examples can certify the objective at all, for a candidate that changes no score.

    Raises:
        TooFewExamplesError: Naming how many are needed.
        InvalidParameterError: If the objective allows no drop at all, which examples cannot prove.
    """
    margin, confidence = objective.quality_drop_at_most, objective.confidence
    if margin == 0:
        rule = "above 0 to be proven by examples"
        hint = "Allow a small drop: 0.01 at 95 % confidence needs 300 examples or so."
        raise InvalidParameterError("objective.quality_drop_at_most", rule=rule, value=margin, hint=hint)
    need = examples_needed(margin, confidence=confidence, is_binary=is_binary)
    if n < need:
        promise = f"a drop of at most {100 * margin:g} points at {100 * confidence:g} % confidence"
        raise TooFewExamplesError(have=n, need=need, promise=promise)


def power_to_certify(n: int, *, discordance: float, drop: float = 0.0, margin: float, confidence: float) -> float:
    """Return the probability that a candidate with this true drop passes the exact test.

    Uses the critical value of the test at the expected number of discordant pairs; the interval for the
    discordance rate moves it by less than the width of one outcome.

    Args:
        n: Pairs, >= 1.
        discordance: Probability that a pair differs, in [|drop|, 1].
        drop: True drop, in [-1, 1].
        margin: Largest drop allowed, in [-1, 1].
        confidence: In (0.5, 0.999].

    Raises:
        InvalidParameterError: If a value is outside its range.
    """
    check_confidence(confidence)
    if not abs(drop) <= discordance <= 1:
        raise InvalidParameterError("discordance", rule=f"in [|drop|, 1] = [{abs(drop)}, 1]", value=discordance)
    critical = _critical_value(n, round(n * discordance), margin, confidence)
    rates = [np.array([(discordance + sign * drop) / 2]) for sign in (1, -1)]
    return float(tail_probability(n, at_most=critical, loss_rate=rates[0], gain_rate=rates[1])[0])


@cache
def _critical_value(n: int, discordant: int, margin: float, confidence: float) -> float:
    """Return the largest order value that passes, to a thousandth, for this many discordant pairs."""
    rates = clopper_pearson(discordant, n=n, level=NUISANCE_LEVEL)
    width = 4 * sqrt(n * rates.high) + 4
    low, high = n * margin - width, min(n * margin + width, n + ORDER_DEVIATIONS * sqrt(n + 1))
    while high - low > 1e-3:
        middle = (low + high) / 2
        p_value = tail_supremum(n, at_most=middle, margin=margin, discordance=rates, cells=_COARSE_CELLS)
        low, high = (middle, high) if p_value <= 1 - confidence else (low, middle)
    return low


@cache
def minimum_detectable_drop(n: int, *, discordance: float, confidence: float, power: float = DEFAULT_POWER) -> float:
    """Return the smallest true drop that n pairs tell from no drop at all, with probability `power`.

        max(z sqrt(d / n), z^2 / n),  z = z_confidence + z_power,  d = discordance

    The second form holds where the drop itself is most of the discordance, as a drop of m makes at least m
    of the pairs differ. Normal approximation, one-sided. It falls as n grows: a promise smaller than this rests
    on few discordant pairs, not on many examples.

    Source: Connor 1987, Biometrics 43(1), sample size for paired proportions, solved for the difference.

    Args:
        n: Pairs, >= 1.
        discordance: Share of pairs that differ (for scores between 0 and 1: mean squared difference), in [0, 1].
        confidence: In (0.5, 1).
        power: In (0, 1).

    Returns:
        In (0, 1].
    """
    deviations = float(ndtri(confidence) + ndtri(power))
    return min(max(deviations * sqrt(discordance / n), deviations**2 / n), 1.0)

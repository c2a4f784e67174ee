"""The exact test and bound for the drop of paired 0/1 scores. Knows counts only: no scores, no verdicts."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, betaincinv, gammaln

from halve.core import FloatArray, IntArray
from halve.errors import InvalidParameterError

NUISANCE_LEVEL = 1e-4
"""Chance that the interval for the discordance rate misses it; it is added to every p-value."""

ORDER_DEVIATIONS = 1.6448536269514722
"""Deviations in the statistic that orders outcomes: the 95 % point, at every confidence (see `order_value`)."""

_CELLS = 256
_WINDOW_DEVIATIONS = 5.0
_LONGEST_TABLE = 200_000
_ROOT_TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A closed interval of rates in [0, 1]."""

    low: float
    high: float


def clopper_pearson(successes: int, *, n: int, level: float) -> Interval:
    """Return the two-sided interval that misses a binomial rate with probability at most `level`.

    Source: Clopper & Pearson 1934, Biometrika 26(4).

    Args:
        successes: Of n trials, 0..n.
        n: Trials, >= 1.
        level: 1 - confidence, in (0, 1); half of it on each side.
    """
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, level / 2))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - level / 2))
    return Interval(low=low, high=high)


def order_value(*, losses: int | FloatArray, gains: int | FloatArray) -> FloatArray:
    """Return w = (b - c) + z sqrt(b + c + 1): outcomes with a smaller w speak more for the candidate.

    w is n times an approximate upper limit of the drop, so an outcome with few discordant pairs counts as
    stronger evidence than one with many and the same difference. Ordering by b - c alone is as valid, but its
    bounds are longer, most of all with few discordant pairs (300 pairs, none discordant: 0.0168, not 0.0099).
    w rises with b and falls with c (because z < 2.4), which `tail_supremum` needs.
    """
    return np.asarray(losses - gains + ORDER_DEVIATIONS * np.sqrt(losses + gains + 1.0))


@lru_cache(maxsize=65_536)
def exact_p_value(n: int, *, losses: int, gains: int, margin: float) -> float:
    """Return the p-value of "the mean drop is at least `margin`" for paired 0/1 scores.

    Pairs are (baseline, candidate); b = losses are (1, 0), c = gains are (0, 1), and the drop m is
    P(1, 0) - P(0, 1). The discordance rate d = P(1, 0) + P(0, 1) is a nuisance:

        p = sup over d in C of P(w(B, C) <= w(b, c); n, m = margin, d) + level of C

    with C the Clopper-Pearson interval of d at NUISANCE_LEVEL, within [|margin|, 1]. The supremum is bounded from
    above on cells of d, so p is never too small; it exceeds the exact value by about 1 % of the bound's
    distance from the observed drop. An observed drop of `margin` or more gives 1. p falls as `margin` rises.

    Valid at every n if pairs are independent and identically distributed. What breaks it: dependent requests
    (repeats of one another, turns of one conversation), a candidate tuned on these very pairs, and looking again
    after adding pairs, which makes false passes more frequent than p says (Armitage, McPherson & Rowe 1969).

    Source: Berger & Boos 1994, JASA 89(427), for the interval; Buehler 1957, JASA 52(280), for bounds by an order.

    Args:
        n: Pairs, >= 1.
        losses: Pairs that only the baseline got right.
        gains: Pairs that only the candidate got right.
        margin: Drop to reject, in [-1, 1].

    Raises:
        InvalidParameterError: If counts are negative, exceed n, or the margin is outside its range.
    """
    _check_counts(n, losses, gains)
    check_margin(margin)
    return _p_value(n, losses, gains, margin)


def _p_value(n: int, losses: int, gains: int, margin: float) -> float:
    if losses - gains >= margin * n:
        return 1.0
    at_most = float(order_value(losses=losses, gains=gains))
    rates = clopper_pearson(losses + gains, n=n, level=NUISANCE_LEVEL)
    return tail_supremum(n, at_most=at_most, margin=margin, discordance=rates)


@lru_cache(maxsize=65_536)
def exact_upper_bound(n: int, *, losses: int, gains: int, confidence: float) -> float:
    """Return the upper confidence bound of the mean drop: the largest m that `exact_p_value` does not reject.

    One-sided. Never below the observed drop, rises with the confidence; 1 if nothing smaller is rejected.

    Args:
        n: Pairs, >= 1.
        losses: Pairs that only the baseline got right.
        gains: Pairs that only the candidate got right.
        confidence: In (0.5, 0.999]; beyond, NUISANCE_LEVEL would eat the error that is allowed.

    Raises:
        InvalidParameterError: If a value is outside its range.
    """
    check_confidence(confidence)
    _check_counts(n, losses, gains)

    def excess(margin: float) -> float:
        return _p_value(n, losses, gains, margin) - (1 - confidence)

    observed = (losses - gains) / n
    near = observed + (3 * np.sqrt(losses + gains + 1.0) + 3) / n
    far = near if near < 1 and excess(near) < 0 else 1.0
    if far == 1 and excess(1.0) > 0:
        return 1.0
    root = float(brentq(excess, observed, far, xtol=_ROOT_TOLERANCE))
    return min(root + 2 * _ROOT_TOLERANCE, 1.0)  # the far side of the root, where p is at most alpha


def tail_supremum(n: int, *, at_most: float, margin: float, discordance: Interval, cells: int = _CELLS) -> float:
    """Return an upper bound of P(w <= at_most) + NUISANCE_LEVEL over an interval of discordance rates.

    In a cell [lo, hi] of rates, losses are at least as likely as (lo + margin) / 2 and gains at most as likely as
    (hi - margin) / 2; w rises with losses and falls with gains, so P at these two rates bounds the cell.
    Cell borders do not depend on the margin, which makes the result fall as the margin rises.
    """
    edges = np.linspace(np.sqrt(discordance.low), np.sqrt(discordance.high), cells + 1) ** 2
    low, high = edges[:-1], edges[1:]
    possible = high >= margin
    if not np.any(possible):
        return NUISANCE_LEVEL
    low, high = np.maximum(low[possible], margin), high[possible]
    loss_rate = np.maximum((low + margin) / 2, 0)
    gain_rate = np.minimum((high - margin) / 2, high)
    tails = tail_probability(n, at_most=at_most, loss_rate=loss_rate, gain_rate=gain_rate)
    return float(min(1.0, tails.max() + NUISANCE_LEVEL))


def tail_probability(n: int, *, at_most: float, loss_rate: FloatArray, gain_rate: FloatArray) -> FloatArray:
    """Return P(w(B, C) <= at_most) for multinomial B, C: sum over k of Bin(k; n, d) BinCDF(j(k); k, q).

    k = B + C is binomial with d = loss_rate + gain_rate; given k, B is binomial with q = loss_rate / d, and
    w <= at_most means B <= j(k) = floor((k + floor(at_most - z sqrt(k + 1))) / 2). Sizes k beyond five
    deviations are not summed: their whole mass is added instead, so the result is never too small.

    Args:
        n: Pairs.
        at_most: Value of `order_value`.
        loss_rate, gain_rate: float64 (cells,), >= 0, together at most 1.

    Returns:
        float64 (cells,).
    """
    rate = np.minimum(loss_rate + gain_rate, 1.0)
    half = int(np.ceil(_WINDOW_DEVIATIONS * np.sqrt(n * np.max(rate * (1 - rate))) + 8))
    first = np.clip(np.round(n * rate).astype(np.int64) - half, 0, max(n - 2 * half, 0))
    size = first[:, None] + np.arange(min(2 * half, n) + 1)
    most_losses = np.floor((size + np.floor(at_most - ORDER_DEVIATIONS * np.sqrt(size + 1.0) + 1e-9)) / 2)
    share = np.divide(loss_rate, rate, out=np.zeros_like(rate), where=rate > 0)[:, None]
    mass = _binomial_mass(size, n=np.int64(n), rate=rate[:, None])
    inside = np.sum(mass * _distribution_along(most_losses.astype(np.int64), size=size, rate=share), axis=1)
    below = np.where(first > 0, bdtr(np.maximum(first - 1, 0), n, rate), 0.0)
    above = np.where(size[:, -1] < n, bdtrc(size[:, -1], n, rate), 0.0)
    tails: FloatArray = np.minimum(inside + below + above, 1.0)
    return tails


def _distribution_along(most: IntArray, *, size: IntArray, rate: FloatArray) -> FloatArray:
    """Return BinCDF(most; size, rate) along rows in which size rises by 1 and most by 0 or 1.

    Each step adds or removes one term, F(j + 1; k + 1) = F(j; k) + (1 - q) f(j + 1; k) or
    F(j; k + 1) = F(j; k) - q f(j; k): ten times faster than an incomplete beta function per entry.
    """
    start = np.where(most[:, :1] < 0, 0.0, bdtr(np.clip(most[:, :1], 0, size[:, :1]), size[:, :1], rate))
    rises = np.diff(most, axis=1)
    term = _binomial_mass(most[:, :-1] + rises, n=size[:, :-1], rate=rate)
    steps = np.where(rises == 1, 1 - rate, -rate) * term
    distribution: FloatArray = np.clip(np.cumsum(np.concatenate([start, steps], axis=1), axis=1), 0.0, 1.0)
    return distribution


def _binomial_mass(successes: IntArray, *, n: IntArray | np.int64, rate: FloatArray) -> FloatArray:
    """Return Bin(successes; n, rate), 0 outside 0..n."""
    inside = (successes >= 0) & (successes <= n)
    k = np.where(inside, successes, 0)
    most = int(np.max(n))
    log_mass = _log_factorial(n, most=most) - _log_factorial(k, most=most) - _log_factorial(n - k, most=most)
    log_mass += k * np.log(np.maximum(rate, 1e-300)) + (n - k) * np.log1p(-np.minimum(rate, 1 - 1e-16))
    mass: FloatArray = np.where(inside, np.exp(log_mass), 0.0)
    return mass


def _log_factorial(numbers: IntArray | np.int64, *, most: int) -> FloatArray:
    """Return log(number!), from a table unless that would be large: twice as fast as the function."""
    logs: FloatArray = _log_factorials(most)[numbers] if most <= _LONGEST_TABLE else gammaln(numbers + 1.0)
    return logs


@lru_cache(maxsize=32)
def _log_factorials(most: int) -> FloatArray:
    table: FloatArray = gammaln(np.arange(most + 1) + 1.0)
    return table


def check_confidence(confidence: float) -> None:
    """Raise InvalidParameterError unless the confidence is one that the exact bound can give."""
    if not 0.5 < confidence <= 0.999:
        raise InvalidParameterError("confidence", rule="in (0.5, 0.999]", value=confidence)


def check_margin(margin: float) -> None:
    """Raise InvalidParameterError unless the margin is a difference that means of scores in [0, 1] can have."""
    if not -1 <= margin <= 1:
        raise InvalidParameterError("margin", rule="in [-1, 1]", value=margin)


def _check_counts(n: int, losses: int, gains: int) -> None:
    if n < 1:
        raise InvalidParameterError("n", rule="at least 1 pair", value=n)
    if losses < 0 or gains < 0 or losses + gains > n:
        raise InvalidParameterError(
            "losses and gains", rule=f"at least 0 and together at most {n}", value=(losses, gains)
        )

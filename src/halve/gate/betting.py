"""A test and bound by betting, for the drop of any paired scores in [0, 1]. Needs no distribution, only the range."""

import numpy as np
from scipy.optimize import brentq

from halve.core import FloatArray
from halve.gate.exact import check_confidence, check_margin

TUNED_ERROR = 0.05
"""Bets are sized to be shortest at this error rate; they are valid at any."""

_BOLDEST_BET = 0.9
_PRIOR_VARIANCE = 1.0
_ROOT_TOLERANCE = 1e-8


def betting_p_value(differences: FloatArray, *, margin: float) -> float:
    """Return the p-value of "the mean difference is at least `margin`" for differences in [-1, 1].

    A gambler starts with 1 and bets against the claim, on one pair after another:

        K_t = product over i <= t of (1 - l_i (D_i - margin)),  p = min(1, 1 / max over t of K_t)
        l_i = min(sqrt(2 log(1 / 0.05) / (n s2_(i-1))), 0.9 / (1 - margin))

    with s2_(i-1) the variance of the pairs before i, shrunk towards 1. If the claim holds, K is a non-negative
    supermartingale, so it ever reaches 1 / alpha with probability at most alpha (Ville 1939). An observed mean of
    `margin` or more gives 1. p falls as `margin` rises: both forms of the bet make K_t rise with it.

    Valid at every n if pairs are independent and identically distributed, and shown in an order that was fixed
    before their scores were seen. What breaks it: NaN (refused by `paired`), dependent requests, a candidate tuned
    on these very pairs, trying several orders. About 1.5 times as long as the exact bound on 0/1 scores.

    Source: Waudby-Smith & Ramdas 2024, JRSS B 86(1), arXiv:2010.09686, section 4 (predictable plug-in bets, one side).

    Args:
        differences: baseline - candidate, float64 (n,), n >= 1, in [-1, 1].
        margin: Drop to reject, in [-1, 1].
    """
    check_margin(margin)
    return _p_value(differences, _bets(differences), margin)


def betting_upper_bound(differences: FloatArray, *, confidence: float) -> float:
    """Return the upper confidence bound of the mean difference: the largest m that `betting_p_value` does not reject.

    One-sided. Never below the observed mean, rises with the confidence; 1 if nothing smaller is rejected.

    Args:
        differences: baseline - candidate, float64 (n,), n >= 1, in [-1, 1].
        confidence: In (0.5, 0.999].
    """
    check_confidence(confidence)
    bets = _bets(differences)

    def excess(margin: float) -> float:
        return _p_value(differences, bets, margin) - (1 - confidence)

    if excess(1.0) > 0:
        return 1.0
    root = float(brentq(excess, float(np.mean(differences)), 1.0, xtol=_ROOT_TOLERANCE))
    return min(root + 2 * _ROOT_TOLERANCE, 1.0)


def _bets(differences: FloatArray) -> FloatArray:
    """Return the size of each bet, before the cap, from the pairs before it only."""
    seen = np.arange(1, len(differences) + 1)
    means = np.cumsum(differences) / (seen + 1)
    variances = (_PRIOR_VARIANCE + np.cumsum((differences - means) ** 2)) / (seen + 1)
    before = np.concatenate([[_PRIOR_VARIANCE], variances[:-1]])
    bets: FloatArray = np.sqrt(2 * np.log(1 / TUNED_ERROR) / (len(differences) * before))
    return bets


def _p_value(differences: FloatArray, bets: FloatArray, margin: float) -> float:
    if np.mean(differences) >= margin:
        return 1.0
    cap = _BOLDEST_BET / (1 - margin) if margin < 1 else np.inf
    log_capital = np.cumsum(np.log1p(-np.minimum(bets, cap) * (differences - margin)))
    return float(np.exp(-max(0.0, log_capital.max())))

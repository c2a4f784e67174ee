"""A bound and a test for a mean loss that hold at every time at once, from shadow calls chosen at random."""

from math import exp, log, log1p

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from halve.core import FloatArray
from halve.errors import InvalidParameterError
from halve.gate.exact import check_confidence

BETS: FloatArray = 0.95 * 0.5 ** np.arange(8, dtype=np.float64)
"""Shares of the boldest bet allowed, mixed in equal parts: one of them suits whatever the truth is."""

STARTS_EVERY = 100
"""Shadow calls between two starts of a gambler: starting more often would spread the money too thinly."""

_ROOT_TOLERANCE = 1e-9


def log_capital(values: FloatArray, *, mean: float, least: float) -> FloatArray:
    """Return the log of a gambler's capital after each value, who bets that the mean is above `mean`.

        K_t = average over bets c of product over i <= t of (1 + c (x_i - mean) / (mean - least))

    If every value has a conditional mean of at most `mean`, K is a non-negative supermartingale that starts at 1, so
    it ever reaches 1 / alpha with probability at most alpha (Ville 1939). Every bet is fixed beforehand, so the
    capital depends on how often each value came, not on the order.

    Source: Waudby-Smith & Ramdas 2024, JRSS B 86(1), arXiv:2010.09686, section 5, a mixture over bets.

    Args:
        values: float64 (n,), at least `least` each.
        mean: Claim tested, above `least`.
        least: Lowest value possible.
    """
    growth = np.log1p(BETS[:, None] * (values - mean) / (mean - least))
    capital: FloatArray = logsumexp(np.cumsum(growth, axis=1), axis=0) - np.log(len(BETS))
    return capital


class ShadowLoss:
    """The mean loss per request of a stage, from sampled shadow calls; may be looked at after every one of them.

    A request is shadowed with a probability p that is fixed before its loss is known. Its weighted loss is
    x = loss / p, that of a request that was not shadowed is 0. So x has the mean of the loss whatever p is, and lies in
    [l / q, u / q] with [l, u] the range of losses and q the least p. Requests that the strong answerer got anyway lose
    0.

    Evidence against "at every time the mean is at most the promise": as `log_capital`, but the j-th gambler starts
    before shadow call 100 (j - 1) + 1 with a part 1 / (j (j + 1)) of the money, so that a break after a long good
    time is seen soon; with s gamblers started by t,

        E_t = 1 / (s + 1) + sum over j <= s of 1 / (j (j + 1)) * (capital of the j-th by t)

    E is a non-negative supermartingale that starts at 1: it ever reaches 1 / alpha with probability at most alpha.

    Source: Waudby-Smith & Ramdas 2024, arXiv:2010.09686, for bets; Shin, Ramdas & Rinaldo 2024, NEJSDS,
    arXiv:2203.03532, for starts over time; Horvitz & Thompson 1952 for the weights.

    What breaks it: a propensity that depends on the loss, shadow results that are dropped when they look bad.

    Args:
        loss_at_most: The promise, in (l, u).
        confidence: Of the bounds, in (0.5, 0.999].
        least_propensity: q, in (0, 1].
        least_loss, most_loss: l and u: -1 and 1 for differences of scores in [0, 1], 0 and 1 for disagreement.

    Raises:
        InvalidParameterError: If a number is outside its range.
    """

    def __init__(
        self,
        *,
        loss_at_most: float,
        confidence: float,
        least_propensity: float,
        least_loss: float = -1.0,
        most_loss: float = 1.0,
    ) -> None:
        check_confidence(confidence)
        if not 0 < least_propensity <= 1:
            raise InvalidParameterError("least_propensity", rule="in (0, 1]", value=least_propensity)
        if not least_loss <= 0 < most_loss:
            raise InvalidParameterError("least_loss", rule="at most 0, and most_loss above 0", value=least_loss)
        if not least_loss < loss_at_most < most_loss:
            rule = f"in ({least_loss}, {most_loss})"
            raise InvalidParameterError("loss_at_most", rule=rule, value=loss_at_most)
        self.loss_at_most, self._alpha, self._propensity = loss_at_most, 1 - confidence, least_propensity
        self._losses = least_loss, most_loss
        self._least, self._most = least_loss / least_propensity, most_loss / least_propensity
        self._bets: FloatArray = BETS / (loss_at_most - self._least)
        self._log_unshadowed: FloatArray = np.log1p(-self._bets * loss_at_most)
        self._log_starts = np.full(len(BETS), -np.inf)
        self._counts: dict[float, int] = {}
        self._requests, self._shadows, self._total = 0, 0, 0.0

    @property
    def requests(self) -> int:
        """Return how many requests have passed."""
        return self._requests

    @property
    def shadows(self) -> int:
        """Return how many of them were shadowed."""
        return self._shadows

    @property
    def mean(self) -> float:
        """Return the weighted mean loss per request; 0 before the first."""
        return self._total / self._requests if self._requests else 0.0

    @property
    def log_evidence(self) -> float:
        """Return log E against the promise; 0 before the first shadow call."""
        if self._shadows == 0:
            return 0.0
        most = float(self._log_starts.max())
        started = most + log(float(np.exp(self._log_starts - most).mean()))
        rest = -log(-(-self._shadows // STARTS_EVERY) + 1)
        return max(started, rest) + log1p(exp(-abs(started - rest)))

    def observe(self, loss: float, *, propensity: float, skipped: int = 0) -> None:
        """Take one shadow result, after `skipped` requests that were not shadowed or lost nothing.

        Raises:
            InvalidParameterError: If the loss or the propensity is outside its range, or `skipped` is negative.
        """
        low, high = self._losses
        if not low <= loss <= high:
            raise InvalidParameterError("loss", rule=f"in [{low}, {high}]", value=loss)
        if not self._propensity <= propensity <= 1:
            rule = f"in [{self._propensity}, 1]"
            raise InvalidParameterError("propensity", rule=rule, value=propensity)
        if skipped < 0:
            raise InvalidParameterError("skipped", rule="at least 0", value=skipped)
        value = loss / propensity
        if self._shadows % STARTS_EVERY == 0:
            start = self._shadows // STARTS_EVERY + 1
            self._log_starts = np.logaddexp(self._log_starts, -log(start * (start + 1)))
        growth = np.log1p(self._bets * (value - self.loss_at_most))
        self._log_starts = self._log_starts + growth + skipped * self._log_unshadowed
        for seen, times in ((value, 1), (0.0, skipped)):
            self._counts[seen] = self._counts.get(seen, 0) + times
        self._requests += 1 + skipped
        self._shadows += 1
        self._total += value

    @property
    def upper_bound(self) -> float:
        """Return the upper bound of the mean loss: the least m for which "the mean is at least m" is refuted.

        One-sided, for a mean that does not change; valid at every time at once. `most_loss` before anything is known.
        """
        values, counts = self._seen()
        low, high = self._losses
        return min(high, -_lower_bound(-values, counts, least=-self._most, alpha=self._alpha, limits=(-high, -low)))

    @property
    def lower_bound(self) -> float:
        """Return the lower confidence bound of the mean loss, as `upper_bound`."""
        values, counts = self._seen()
        return _lower_bound(values, counts, least=self._least, alpha=self._alpha, limits=self._losses)

    def _seen(self) -> tuple[FloatArray, FloatArray]:
        return np.array(list(self._counts), dtype=float), np.array(list(self._counts.values()), dtype=float)


def _lower_bound(
    values: FloatArray, counts: FloatArray, *, least: float, alpha: float, limits: tuple[float, float]
) -> float:
    """Return the largest m whose claim "the mean is at most m" is refuted, within limits; capital falls as m rises."""

    def excess(mean: float) -> float:
        growth = np.log1p(BETS[:, None] * (values - mean) / (mean - least)) @ counts
        return float(logsumexp(growth) - np.log(len(BETS)) + np.log(alpha))

    low, high = limits
    if counts.sum() == 0:
        return low
    start = max(low, least + 1e-12 * (high - least))
    if excess(start) < 0:
        return low
    mean = float(values @ counts / counts.sum())
    root = float(brentq(excess, start, min(mean, high), xtol=_ROOT_TOLERANCE))
    return max(low, root - _ROOT_TOLERANCE)

"""One stage's threshold at a time, exactly, given the others: what the search over chains is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.techniques.inference.cascading.chains import ChainTable, Numbers
from halve.techniques.inference.cascading.thresholds import LEAST_GAP, NEVER

_SWEEPS = 4
_CHEAPEST_LOSS, _DEAREST_LOSS = 0.3, 3000.0
"""USD that one lost answer may count as, in units of what the whole chain costs per request."""


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Where a threshold can lie.

    Args:
        order: int64 (n,): requests, the surest first.
        counts: int64 (cuts,): how many of them are above each threshold, rising from 0 to n.
        thresholds: float64 (cuts,): falling from NEVER to 0.
    """

    order: NDArray[np.int64]
    counts: NDArray[np.int64]
    thresholds: Numbers

    @classmethod
    def of(cls, sure: Numbers) -> "Cuts":
        """Return the cuts of a stage that is this sure, float64 (n,)."""
        order = np.argsort(-sure, kind="stable")
        falling = sure[order]
        inner = np.flatnonzero(falling[:-1] - falling[1:] >= LEAST_GAP) + 1
        middles = (falling[inner - 1] + falling[inner]) / 2
        counts = np.concatenate([[0], inner, [len(sure)]])
        return cls(order=order, counts=counts, thresholds=np.concatenate([[NEVER], middles, [0.0]]))

    def thinned(self, most: int) -> "Cuts":
        """Return at most this many cuts (3 or more), spread evenly over the requests, both ends among them."""
        if len(self.counts) <= most:
            return self
        wanted = np.linspace(0, self.counts[-1], most)
        kept = np.unique(np.searchsorted(self.counts, wanted))
        return Cuts(order=self.order, counts=self.counts[kept], thresholds=self.thresholds[kept])

    def sums(self, values: Numbers) -> Numbers:
        """Return the sums of values (..., n) over the requests above each cut, (..., cuts)."""
        totals = np.cumsum(values[..., self.order], axis=-1)
        zero = np.zeros((*values.shape[:-1], 1))
        sums: Numbers = np.concatenate([zero, totals], axis=-1)[..., self.counts]
        return sums


def tuned(table: ChainTable, losses: Numbers, levels: int) -> tuple[Numbers, Numbers]:
    """Return thresholds (levels, k - 1) and skips (levels,), each the best found at one price of quality."""
    stages, spent = len(table.names) - 1, np.cumsum(table.usd, axis=0)
    unit = max(float(spent[-1].mean()), 1e-300)
    prices = unit * np.geomspace(_CHEAPEST_LOSS, _DEAREST_LOSS, levels)
    values = -prices[:, None, None] * losses - spent  # (levels, k, n): worth of ending at each stage
    direct = -prices[:, None] * losses[-1] - table.usd[-1]
    cuts = [Cuts.of(sure) for sure in table.sure]
    away = None if table.prior is None else Cuts.of(1 - table.prior)
    thresholds, skips = np.full((levels, stages), NEVER), np.zeros(levels)
    for _ in range(_SWEEPS):
        before = thresholds.copy(), skips.copy()
        for stage in reversed(range(stages)):
            reached = ~skipped(table, skips)
            for earlier in range(stage):
                reached &= table.sure[earlier] < thresholds[:, earlier, None]
            later = _worth(table, values, thresholds, first=stage + 1)
            thresholds[:, stage] = _best(cuts[stage], np.where(reached, values[:, stage] - later, 0.0))
        if away is not None:
            found = _best(away, direct - _worth(table, values, thresholds, first=0))
            skips = np.where(found == NEVER, 0.0, np.where(found == 0, NEVER, 1 - found))
        if np.array_equal(before[0], thresholds) and np.array_equal(before[1], skips):
            break
    return thresholds, skips


def _worth(table: ChainTable, values: Numbers, thresholds: Numbers, *, first: int) -> Numbers:
    """Return what each request is worth if it goes on at stage `first`, (levels, n)."""
    worth = values[:, -1]
    for stage in reversed(range(first, values.shape[1] - 1)):
        worth = np.where(table.sure[stage] >= thresholds[:, stage, None], values[:, stage], worth)
    return worth


def _best(cuts: Cuts, gains: Numbers) -> Numbers:
    """Return the threshold with the largest sum of gains above it, for each row of (levels, n)."""
    best: Numbers = cuts.thresholds[np.argmax(cuts.sums(gains), axis=1)]
    return best


def skipped(table: ChainTable, skips: Numbers) -> NDArray[np.bool_]:
    """Return who goes straight to the last answerer, bool (settings, n)."""
    if table.prior is None:
        return np.zeros((len(skips), table.requests), dtype=np.bool_)
    return table.prior < skips[:, None]

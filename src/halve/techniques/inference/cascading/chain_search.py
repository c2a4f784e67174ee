"""Thresholds of all stages of many chains, chosen jointly on recorded requests. Guarantees nothing: see guarantee."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chains import Chain, ChainTable, Numbers
from halve.techniques.inference.cascading.sweeps import Cuts, skipped, tuned

LEVELS = 40
"""Prices of quality at which a chain of three or more is tuned."""

GRID = 48
"""Thresholds of the first of three stages that are tried; twice as many of the second."""

VARIATIONS = 12
"""Values of each threshold tried around a setting of a longer chain."""

CHANCES = tuple(ndtr(np.arange(4.5, -1.26, -0.25)).tolist())
"""Predicted chances to pass a certificate, from the candidate tested first to the last. Fine steps: neighbours are
much alike and pass or fail together, and a first one that hardly fails keeps a bad draw from costing everything."""

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class ChainPoints:
    """Settings of one chain on recorded requests, as columns of equal length.

    Args:
        names: The answerers.
        thresholds: float64 (points, k - 1).
        skip_below: float64 (points,).
        usd: float64 (points,): mean USD per request, rejected calls included.
        drop: float64 (points,): mean of (strong score - chain score); negative is a gain.
        squares: float64 (points,): mean of that difference squared.
        requests: How many they were measured on.
    """

    names: tuple[str, ...]
    thresholds: Numbers
    skip_below: Numbers
    usd: Numbers
    drop: Numbers
    squares: Numbers
    requests: int

    def chain(self, place: int) -> Chain:
        """Return one of the settings."""
        thresholds = tuple(self.thresholds[place].tolist())
        return Chain(names=self.names, thresholds=thresholds, skip_below=float(self.skip_below[place]))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting of one chain, as it did on the requests it was chosen on, which flatter it.

    Args:
        chain: The setting.
        usd_per_request: Mean USD, rejected calls included.
        quality_drop: Mean of (strong score - chain score).
        deviation: Of that difference over requests, with one loss and one gain added, so that it is never 0.
        requests: How many they were.
    """

    chain: Chain
    usd_per_request: float
    quality_drop: float
    deviation: float
    requests: int


def chain_points(
    table: ChainTable, *, strong_scores: Numbers, expected_losses: Numbers | None = None, levels: int = LEVELS
) -> ChainPoints:
    """Return the settings of one chain that are worth looking at, with what each costs and loses.

    - Two answerers: one sort by sureness and cumulative sums give every threshold there is: exact.
    - Three: the same sort for the second stage at each of up to GRID values of the first, spread evenly over the
      requests: exact up to that grid.
    - More, or with a prior: quality gets a price, USD per lost answer, from next to nothing to a great deal in
      `levels` steps. At each price the thresholds are swept in turn, last stage first, until none moves; given the
      others, one sort finds the best value of each. Around each setting found, every threshold is varied alone.
      That can stop in a local optimum.

    A threshold lies half-way between two values at least LEAST_GAP apart.

    Args:
        table: Of the chain.
        strong_scores: float64 (n,), of the answerer that quality is compared with, on the same requests.
        expected_losses: float64 (k, n), or None: what ending at each stage is expected to lose against the strong
            answerer, by a model of the signals. Drops are then means of these, deviations still of what was recorded.
            Among thousands of settings the luckiest wins; expectations have less luck in them than zeros and ones.
        levels: Prices tried, for chains of four or more.

    Raises:
        InvalidParameterError: If the numbers of requests differ.
    """
    if strong_scores.shape != (table.requests,):
        raise InvalidParameterError("strong_scores", rule=f"of shape ({table.requests},)", value=strong_scores.shape)
    squares = (strong_scores - table.scores) ** 2
    losses = strong_scores - table.scores if expected_losses is None else expected_losses
    if losses.shape != table.scores.shape:
        raise InvalidParameterError("expected_losses", rule=f"of shape {table.scores.shape}", value=losses.shape)
    if len(table.names) == 1:
        return _measured(table, losses, squares, (np.empty((1, 0)), np.zeros(1)))
    if len(table.names) == 2 and table.prior is None:
        return _two_stages(table, losses, squares)
    if len(table.names) == 3 and table.prior is None:
        return _three_stages(table, losses, squares)
    return _measured(table, losses, squares, _varied(table, *tuned(table, losses, levels)))


def frontier(points: Iterable[ChainPoints]) -> tuple[Candidate, ...]:
    """Return the settings that no other beats in both cost and drop, from dear to cheap, so that drops rise."""
    pool = _Pool(points)
    order = np.lexsort((pool.usd, pool.drop))
    least = np.minimum.accumulate(np.append(np.inf, pool.usd[order]))[:-1]
    return tuple(pool.candidate(int(place)) for place in order[pool.usd[order] < least])


def cheapest(points: Iterable[ChainPoints], *, quality_drop_at_most: float) -> Candidate | None:
    """Return the cheapest setting whose drop on these requests is at most this; None if there is none.

    The cheapest of many on the requests it is measured on is flattered: this is an oracle there, no promise elsewhere.
    """
    pool = _Pool(points)
    allowed = np.flatnonzero(pool.drop <= quality_drop_at_most + _ROUNDING)
    return pool.candidate(int(allowed[np.argmin(pool.usd[allowed])])) if len(allowed) else None


def candidates(
    points: Iterable[ChainPoints],
    *,
    quality_drop_at_most: float,
    certify_requests: int,
    confidence: float,
    chances: Sequence[float] = CHANCES,
) -> tuple[Candidate, ...]:
    """Return few settings, from cautious to bold, for fixed-sequence testing on other requests.

    For each chance c the cheapest setting that is predicted to pass with probability c or more:

        P(pass) = Phi((m - d - z s / sqrt(n_c)) / (s sqrt(1 / n_s + 1 / n_c)))

    with m the drop allowed, d and s the drop and its deviation on the n_s search requests, n_c requests to certify on
    and z the confidence's normal quantile: the certificate's bound must be below m, and both samples are noisy. s is
    of counts with one loss and one gain more. A setting that costs no less than the one before is left out.

    Args:
        points: Of the chains allowed, all on the same search requests.
        quality_drop_at_most: m, in score units.
        certify_requests: n_c, >= 1.
        confidence: Of the certificate, in (0.5, 1).
        chances: Falling, in (0, 1).

    Raises:
        InvalidParameterError: If a number is outside its range.
    """
    if not 0.5 < confidence < 1:
        raise InvalidParameterError("confidence", rule="in (0.5, 1)", value=confidence)
    if certify_requests < 1:
        raise InvalidParameterError("certify_requests", rule="at least 1", value=certify_requests)
    pool = _Pool(points)
    noise = pool.deviation * np.sqrt(1 / pool.requests + 1 / certify_requests)
    needed = pool.drop + float(ndtri(confidence)) * pool.deviation / np.sqrt(certify_requests)
    predicted = ndtr((quality_drop_at_most - needed) / noise)
    chosen: list[Candidate] = []
    for chance in chances:
        likely = np.flatnonzero(predicted >= chance)
        if len(likely) == 0:
            continue
        found = pool.candidate(int(likely[np.argmin(pool.usd[likely])]))
        if not chosen or found.usd_per_request < chosen[-1].usd_per_request:
            chosen.append(found)
    return tuple(chosen)


class _Pool:
    """The points of many chains, side by side."""

    def __init__(self, points: Iterable[ChainPoints]) -> None:
        self._parts = list(points)
        if not self._parts:
            raise InvalidParameterError("points", rule="of at least one chain", value=0)
        self.usd = np.concatenate([part.usd for part in self._parts])
        self.drop = np.concatenate([part.drop for part in self._parts])
        self.requests = np.concatenate([np.full(len(part.usd), float(part.requests)) for part in self._parts])
        squares = np.concatenate([part.squares for part in self._parts])
        smoothed = (squares * self.requests + 2) / (self.requests + 2)
        self.deviation: Numbers = np.sqrt(np.maximum(smoothed - self.drop**2, 1 / self.requests))
        self._ends = np.cumsum([len(part.usd) for part in self._parts])

    def candidate(self, place: int) -> Candidate:
        part = int(np.searchsorted(self._ends, place, side="right"))
        within = place - (int(self._ends[part - 1]) if part else 0)
        return Candidate(
            chain=self._parts[part].chain(within),
            usd_per_request=float(self.usd[place]),
            quality_drop=float(self.drop[place]),
            deviation=float(self.deviation[place]),
            requests=int(self.requests[place]),
        )


def _two_stages(table: ChainTable, losses: Numbers, squares: Numbers) -> ChainPoints:
    cuts = Cuts.of(table.sure[0])

    def mean(first: Numbers, last: Numbers) -> Numbers:
        means: Numbers = (cuts.sums(first - last) + last.sum()) / table.requests
        return means

    return ChainPoints(
        names=table.names,
        thresholds=cuts.thresholds[:, None],
        skip_below=np.zeros(len(cuts.thresholds)),
        usd=mean(table.usd[0], table.usd[0] + table.usd[1]),
        drop=mean(losses[0], losses[1]),
        squares=mean(squares[0], squares[1]),
        requests=table.requests,
    )


def _three_stages(table: ChainTable, losses: Numbers, squares: Numbers) -> ChainPoints:
    first, second = Cuts.of(table.sure[0]).thinned(GRID), Cuts.of(table.sure[1]).thinned(2 * GRID)
    stands = table.sure[0] >= first.thresholds[:, None]  # (first, n)

    def mean(at_each_stage: Numbers) -> Numbers:
        """Return means at all pairs of thresholds from what it is to end at each stage, (3, n)."""
        reached = np.where(stands, 0.0, at_each_stage[1] - at_each_stage[2])
        rest = np.where(stands, at_each_stage[0], at_each_stage[2]).sum(axis=1)
        means: Numbers = (second.sums(reached) + rest[:, None]).ravel() / table.requests
        return means

    pairs = np.meshgrid(first.thresholds, second.thresholds, indexing="ij")
    return ChainPoints(
        names=table.names,
        thresholds=np.column_stack([one.ravel() for one in pairs]),
        skip_below=np.zeros(pairs[0].size),
        usd=mean(np.cumsum(table.usd, axis=0)),
        drop=mean(losses),
        squares=mean(squares),
        requests=table.requests,
    )


def _varied(table: ChainTable, thresholds: Numbers, skips: Numbers) -> tuple[Numbers, Numbers]:
    """Return the settings and, around each, others with one threshold changed."""
    rows, columns = [thresholds], [skips]
    for stage in range(thresholds.shape[1]):
        values = Cuts.of(table.sure[stage]).thinned(VARIATIONS).thresholds
        changed = np.repeat(thresholds, len(values), axis=0)
        changed[:, stage] = np.tile(values, len(thresholds))
        rows.append(changed)
        columns.append(np.repeat(skips, len(values)))
    return np.concatenate(rows), np.concatenate(columns)


def _measured(table: ChainTable, losses: Numbers, squares: Numbers, tried: tuple[Numbers, Numbers]) -> ChainPoints:
    """Return the points of these settings, measured one and all at once."""
    settings = np.unique(np.column_stack(tried), axis=0)
    thresholds, skips = settings[:, :-1], settings[:, -1]
    gone = skipped(table, skips)
    spent = np.cumsum(table.usd, axis=0)
    usd = np.where(gone, table.usd[-1], spent[-1])
    lost, squared = (np.broadcast_to(values[-1], gone.shape) for values in (losses, squares))
    for stage in reversed(range(len(table.names) - 1)):
        stands = (table.sure[stage] >= thresholds[:, stage, None]) & ~gone
        usd = np.where(stands, spent[stage], usd)
        lost, squared = np.where(stands, losses[stage], lost), np.where(stands, squares[stage], squared)
    return ChainPoints(
        names=table.names,
        thresholds=thresholds,
        skip_below=skips,
        usd=usd.mean(axis=1),
        drop=lost.mean(axis=1),
        squares=squared.mean(axis=1),
        requests=table.requests,
    )

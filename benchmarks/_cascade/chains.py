"""Scorers and tables of many chains on one split, for our search and for the peers that search chains too."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from benchmarks._cascade.recorded import Array, Recorded
from benchmarks._cascade.splits import Rows
from halve.techniques.inference.cascading.chains import ChainTable
from halve.techniques.inference.cascading.neighbours import NeighbourSuccess, exact_nearest
from halve.techniques.inference.cascading.scorer import LogisticScorer, fit_scorer

FOLDS = 3
PENALTY = 3.0
EXPECTED_SHARE = 0.8
"""Weight of expected losses against recorded ones in the search."""
NEIGHBOURS = 20

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class Style:
    """What a method's scorers look at.

    Args:
        agreement: Whether a stage sees if its answer agrees with earlier ones, and neighbours' past success.
        stages: Longest chain.
        answerers: Largest number of answerers that chains are made of.
    """

    agreement: bool = True
    stages: int = 3
    answerers: int = 8


class Scorers:
    """Scorers of all prefixes of chains, fitted on some rows of a set and cross-fitted on these rows themselves."""

    def __init__(self, recorded: Recorded, rows: Rows, style: Style) -> None:
        self.recorded, self.rows, self.style = recorded, rows, style
        self.pool = _pool(recorded, rows, style.answerers)
        self._fitted: dict[Prefix, tuple[LogisticScorer, Array]] = {}
        self._losses: dict[Prefix, Array] = {}
        folds = np.arange(len(rows)) % FOLDS
        self._folds = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(FOLDS)]

    def structures(self) -> Iterator[Prefix]:
        """Yield chains of answerers by rising cost: any one, any two, ... of the pool."""
        for length in range(1, self.style.stages + 1):
            yield from combinations(self.pool, length)

    def tables(self, rows: Rows | None = None) -> list[ChainTable]:
        """Return the tables of all structures; without rows, cross-fitted on the scorers' own."""
        sure: dict[Prefix, Array] = {}
        tables = []
        for structure in self.structures():
            prefixes = [structure[: length + 1] for length in range(len(structure) - 1)]
            for prefix in prefixes:
                if prefix not in sure:
                    sure[prefix] = self.sure(prefix, rows)
            tables.append(self._table(structure, [sure[prefix] for prefix in prefixes], rows))
        return tables

    def table(self, names: tuple[str, ...], rows: Rows) -> ChainTable:
        """Return the table of one chain by its answerers' names."""
        structure = tuple(self.recorded.answerers.index(name) for name in names)
        sures = [self.sure(structure[: length + 1], rows) for length in range(len(structure) - 1)]
        return self._table(structure, sures, rows)

    def table_of(self, structure: Prefix) -> ChainTable:
        """Return the cross-fitted table of one chain, on the scorers' own rows."""
        sures = [self.sure(structure[: length + 1], None) for length in range(len(structure) - 1)]
        return self._table(structure, sures, None)

    def _table(self, structure: Prefix, sures: list[Array], rows: Rows | None) -> ChainTable:
        at, recorded = self.rows if rows is None else rows, self.recorded
        places = np.array(structure)
        return ChainTable(
            names=tuple(recorded.answerers[place] for place in structure),
            scores=recorded.scores[places][:, at],
            usd=recorded.usd[places][:, at],
            sure=np.stack(sures) if sures else np.empty((0, len(at))),
        )

    def sure(self, prefix: Prefix, rows: Rows | None) -> Array:
        """Return how sure the last answerer of a prefix is; without rows, cross-fitted."""
        if prefix not in self._fitted:
            self._fitted[prefix] = self._fit(prefix, self.recorded.scores[prefix[-1], self.rows])
        scorer, crossed = self._fitted[prefix]
        return crossed if rows is None else scorer.probability(self._features(prefix, rows))

    def expected_losses(self, structure: Prefix) -> Array:
        """Return what ending at each stage loses against the strong model: recorded and, cross-fitted, expected."""
        recorded, strong = self.recorded, self.recorded.strong
        losses = []
        for length in range(1, len(structure) + 1):
            prefix = structure[:length]
            if prefix[-1] == strong:
                losses.append(np.zeros(len(self.rows)))
                continue
            if prefix not in self._losses:
                scores = recorded.scores[:, self.rows]
                advantage = (1 + scores[prefix[-1]] - scores[strong]) / 2
                expected, recorded_losses = 1 - 2 * self._fit(prefix, advantage)[1], 1 - 2 * advantage
                self._losses[prefix] = EXPECTED_SHARE * expected + (1 - EXPECTED_SHARE) * recorded_losses
            losses.append(self._losses[prefix])
        return np.stack(losses)

    def _fit(self, prefix: Prefix, targets: Array) -> tuple[LogisticScorer, Array]:
        features = self._features(prefix, None)
        names = [f"signal {number}" for number in range(features.shape[1])]

        def fitted(places: Rows) -> LogisticScorer:
            return fit_scorer(features[places], targets[places], features=names, penalty=PENALTY)

        crossed = np.empty(len(targets))
        for others, these in self._folds:
            crossed[these] = fitted(others).probability(features[these])
        return fitted(np.arange(len(targets))), crossed

    def _features(self, prefix: Prefix, rows: Rows | None) -> Array:
        recorded, at, last = self.recorded, self.rows if rows is None else rows, prefix[-1]
        columns = [recorded.signals[last, at], recorded.asked[at]]
        if self.style.agreement:
            given = recorded.answers[np.array(prefix)][:, at]
            agree = [(given[one] == given[other]) for one, other in combinations(range(len(prefix)), 2)]
            columns += [column[:, None].astype(float) for column in agree]
            if recorded.vectors is not None:
                columns.append(self._neighbours(rows)[:, [last, recorded.strong]])
        return np.hstack(columns)

    def _neighbours(self, rows: Rows | None) -> Array:
        if rows is None:
            return self._own_neighbours
        key = hash(rows.tobytes())
        if key not in self._kept:
            self._kept[key] = self._success.estimate(self.recorded.vectors[rows])
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[int, Array]:
        return {}

    @cached_property
    def _success(self) -> NeighbourSuccess:
        vectors, scores = self.recorded.vectors[self.rows], self.recorded.scores[:, self.rows].T
        return NeighbourSuccess(scores=scores, nearest=exact_nearest(vectors), neighbours=NEIGHBOURS)

    @cached_property
    def _own_neighbours(self) -> Array:
        own = np.arange(len(self.rows))
        return self._success.estimate(self.recorded.vectors[self.rows], leave_out=own)


def _pool(recorded: Recorded, rows: Rows, most: int) -> list[int]:
    """Return answerers that may pay, by rising cost: the strong one, and the best of those that no other outdoes.

    An answerer that a cheaper one beats clearly (two deviations of the difference) is left out; of the rest, those
    with the best score for their place in cost stay.
    """
    scores, usd = recorded.scores[:, rows], recorded.usd[:, rows].mean(axis=1)
    quality, strong, kept = scores.mean(axis=1), recorded.strong, []
    for place in np.argsort(usd, kind="stable").tolist():
        if usd[place] > usd[strong]:
            continue
        better = [other for other in kept if _clearly_better(scores[other], scores[place])]
        if not better or place == strong:
            kept.append(place)
    while len(kept) > most:
        spare = [place for place in kept if place != strong]
        excess = {
            place: quality[place] - max([quality[o] for o in spare if usd[o] < usd[place]], default=0)
            for place in spare
        }
        kept.remove(min(spare, key=lambda place: excess[place]))
    return kept


def _clearly_better(one: Array, other: Array) -> bool:
    difference = one - other
    return bool(difference.mean() > 2 * difference.std() / np.sqrt(len(difference)))

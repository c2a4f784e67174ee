"""Which width every group gets: the least importance lost for a predicted latency of at most the budget.

Let c_g(w) be the importance that group g loses at width w (its least important units go first) and t(w_1, w_2, ...) the
sum of the measured layer seconds, where each layer's depends on the groups on both its sides:

    minimize sum_g c_g(w_g)   subject to   t(w) <= ratio x t(whole)

Starting from the whole module, the move with the least importance lost per second saved is made, until the budget is
met. A move may narrow a group by several steps at once, so a flat stretch in its seconds is looked past and never
stopped in. Seconds saved beyond the budget do not count. Then moves are taken back where there is room: one group
wider, or one wider and another narrower, as long as importance is gained.

So no width is chosen that is not faster than a wider one: the wider one would cost nothing and lose less.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.cut import Positions
from halve.techniques.compression.pruning.structured.groups import Group
from halve.techniques.compression.pruning.structured.latency import LatencyTable

MOST_EXCHANGES = 200
"""Moves taken back or exchanged after the budget is met."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is kept.

    Args:
        kept: By group the units that stay, ascending. Groups that stay whole are in it too.
        widths: By group the channels that stay.
        predicted_ratio: Sum of the layers' seconds after over before, by the table.
        lost: Importance removed, in the unit of the scores.
    """

    kept: Mapping[str, Positions]
    widths: Mapping[str, int]
    predicted_ratio: float
    lost: float


def plan_widths(
    groups: Sequence[Group],
    scores: Mapping[str, NDArray[np.float64]],
    table: LatencyTable,
    *,
    target_ratio: float,
    fixed: Mapping[str, int] | None = None,
) -> Plan:
    """Return the plan whose predicted seconds are at most `target_ratio` of the whole module's.

    Args:
        groups: What can be pruned, at its present width.
        scores: By group, (units,), >= 0.
        table: Measured, of the whole module; its groups may be wider than the present ones.
        target_ratio: Above 0, at most 1.
        fixed: Widths of groups in the table that are not pruned any further.

    Raises:
        InvalidParameterError: If the ratio is outside its range, or scores do not fit the groups.
        ModelError: If the narrowest widths still take more than the target.
    """
    if not 0 < target_ratio <= 1:
        raise InvalidParameterError("target_ratio", rule="above 0, at most 1", value=target_ratio)
    for group in groups:
        if group.name not in scores or scores[group.name].shape != (group.units,):
            got = None if group.name not in scores else scores[group.name].shape
            raise InvalidParameterError(f"scores[{group.name!r}]", rule=f"of shape ({group.units},)", value=got)
    search = _Search(groups, scores, table, fixed=fixed or {})
    budget = target_ratio * table.seconds({})
    search.narrow_to(budget, target_ratio=target_ratio)
    search.give_back(budget)
    kept = {group.name: _best(scores[group.name], search.widths[group.name] // group.unit) for group in groups}
    widths = {group.name: search.widths[group.name] for group in groups}
    ratio = search.seconds / table.seconds({})
    return Plan(kept=kept, widths=widths, predicted_ratio=ratio, lost=search.lost())


def _best(scores: NDArray[np.float64], count: int) -> Positions:
    """Return the units with the highest scores, ascending; of equal ones the first."""
    order = np.argsort(-scores, kind="stable")
    return tuple(sorted(int(unit) for unit in order[:count]))


class _Search:
    """The widths as they are now, and what every change would save and lose."""

    def __init__(
        self,
        groups: Sequence[Group],
        scores: Mapping[str, NDArray[np.float64]],
        table: LatencyTable,
        *,
        fixed: Mapping[str, int],
    ) -> None:
        self.table = table
        self.choices = {
            group.name: (*(w for w in table.candidates[group.name] if w < group.width), group.width) for group in groups
        }
        self.widths = {**fixed, **{group.name: group.width for group in groups}}
        # Importance lost at every number of units kept: the lowest scores go first.
        self.losses = {
            group.name: {
                width: float(np.sort(scores[group.name])[: group.units - width // group.unit].sum())
                for width in self.choices[group.name]
            }
            for group in groups
        }
        self.layers: dict[str, list[str]] = {name: [] for name in self.choices}
        for layer, sides in table.sides.items():
            for side in sides:
                if side is not None and side[0] in self.layers:
                    self.layers[side[0]].append(layer)
        self.known: dict[tuple[object, ...], float] = {}
        self.seconds = sum(self._layer(layer, self.widths) for layer in table.grids)

    def lost(self) -> float:
        return sum(self.losses[name][self.widths[name]] for name in self.choices)

    def narrow_to(self, budget: float, *, target_ratio: float) -> None:
        """Make the cheapest move until the budget is met."""
        while self.seconds > budget * (1 + 1e-12):
            best: tuple[float, float, str, int] | None = None
            for name, width in self._moves(narrower=True):
                saved = min(self.seconds - self._after({name: width}), self.seconds - budget)
                if saved <= 0:
                    continue
                lost = self.losses[name][width] - self.losses[name][self.widths[name]]
                move = (lost / saved, lost, name, width)
                best = move if best is None else min(best, move)
            if best is None:
                reached = self.seconds / self.table.seconds({})
                raise ModelError(
                    f"no pruning reaches {target_ratio:g} of the latency here: the narrowest widths take {reached:.2f}."
                )
            self._set({best[2]: best[3]})

    def give_back(self, budget: float) -> None:
        """Widen, and exchange width between groups, while importance is gained within the budget."""
        for _ in range(MOST_EXCHANGES):
            best: tuple[float, dict[str, int]] | None = None
            for change in self._changes():
                gain = sum(self.losses[name][self.widths[name]] - self.losses[name][w] for name, w in change.items())
                if gain < 0 or (best is not None and gain <= best[0]):
                    continue
                after = self._after(change)
                # Wider for nothing is taken even where the scores see no gain.
                if after <= (budget if gain > 0 else min(budget, self.seconds)):
                    best = (gain, change)
            if best is None:
                return
            self._set(best[1])

    def _changes(self) -> Iterator[dict[str, int]]:
        wider = list(self._moves(narrower=False))
        yield from ({name: width} for name, width in wider)
        for name, width in wider:
            for other, less in self._moves(narrower=True):
                gain = self.losses[name][self.widths[name]] - self.losses[name][width]
                cost = self.losses[other][less] - self.losses[other][self.widths[other]]
                if other != name and gain > cost:
                    yield {name: width, other: less}

    def _moves(self, *, narrower: bool) -> Iterator[tuple[str, int]]:
        for name, choices in self.choices.items():
            now = self.widths[name]
            yield from ((name, width) for width in choices if (width < now if narrower else width > now))

    def _after(self, change: Mapping[str, int]) -> float:
        widths = {**self.widths, **change}
        touched = {layer for name in change for layer in self.layers[name]}
        return self.seconds + sum(self._layer(layer, widths) - self._layer(layer, self.widths) for layer in touched)

    def _set(self, change: Mapping[str, int]) -> None:
        self.widths.update(change)
        self.seconds = sum(self._layer(layer, self.widths) for layer in self.table.grids)

    def _layer(self, layer: str, widths: Mapping[str, int]) -> float:
        names = [None if side is None else widths.get(side[0]) for side in self.table.sides[layer]]
        key = (layer, *names)
        if key not in self.known:
            self.known[key] = self.table.layer_seconds(layer, widths)
        return self.known[key]

"""Thresholds that start from the pool's and move away as a cluster or an entry gathers evidence of its own.

A rule that learns every entry alone needs several labels of each before it may serve anything, which under long-tail
traffic and a time to live never come (vCache issue 81). Here an entry without evidence has the pool's threshold. What
that promises is proved for the pool; what entries deviate by is estimated, not proved.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import probabilities
from halve.techniques.inference.caching.semantic.packing import packed, unpacked

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

SCHEMA = "halve.pooled-thresholds/1"
LEVELS = (0.02, 0.07, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.925, 0.965, 0.99)
"""Probabilities are counted as the nearest of these, in log-odds."""

PRIOR_VARIANCE = 0.1
"""Of deviations in log-odds, before anything is seen: one in three differs by more than 0.3."""

PRIOR_WEIGHT = 20.0
"""Squared information that the prior variance counts as: that of some twenty labelled look-ups of one entry."""

_MOST_VARIANCE = 4.0
_POOL_VARIANCE = 1.0
_LOGITS = np.log(np.array(LEVELS) / (1 - np.array(LEVELS)))
_BORDERS = (_LOGITS[1:] + _LOGITS[:-1]) / 2
_NEWTON_STEPS = 8
_MOST_REMEMBERED = 65_536


class PooledThresholds:
    """Thresholds for pool, cluster and entry from labelled look-ups, by shrinkage.

    If the scorer says p, the answer of entry e in cluster c is right with log-odds logit(p) + g + d_c + d_e: a shift of
    the pool, one of the cluster and one of the entry, normal around 0 with variances that all clusters and all entries
    tell together. Each shift is its posterior mode given the levels above (Newton's method on counts per level of p).
    The look-up is then served if logit(p) >= logit(pool) - shift, where

        shift = m                    if m = g + d_c + d_e is negative: the threshold rises at once
        shift = max(0, m - z s)      otherwise, s the posterior deviation: it falls only as far as is sure

    Variances by the method of moments: with S the sum of (right - p) and I the sum of p (1 - p) over a cluster's
    look-ups, E[S^2] = I + variance I^2. Only counts are kept, so the order of look-ups does not matter.

    Sources: Efron & Morris 1975, JASA 70(350), for shrinkage by a variance that the units tell together; DerSimonian &
    Laird 1986, Controlled Clinical Trials 7(3), for moments; Gelman & Hill 2007, ch. 14, for nested logistic models.

    Args:
        pool: The threshold that holds without evidence, in (0, 1], or above 1 for never: then it stays so.
        caution: z, >= 0.
        cluster_slots, entry_slots: Clusters and entries share that many places by hash, which bounds memory (208 bytes
            a place); two that fall together share their evidence. Powers of 2.

    Raises:
        InvalidParameterError: If a value is out of range.
    """

    def __init__(
        self, *, pool: float, caution: float = 1.0, cluster_slots: int = 1_024, entry_slots: int = 16_384
    ) -> None:
        if not pool > 0:
            raise InvalidParameterError("pool", rule="above 0", value=pool)
        if not caution >= 0:
            raise InvalidParameterError("caution", rule="at least 0", value=caution)
        for name, slots in (("cluster_slots", cluster_slots), ("entry_slots", entry_slots)):
            if slots < 1 or slots & (slots - 1) or slots > 2**24:
                raise InvalidParameterError(name, rule="a power of 2, at most 2^24", value=slots)
        self.pool, self.caution = pool, caution
        self._clusters = np.zeros((cluster_slots, len(LEVELS), 2), dtype=np.int64)
        self._entries = np.zeros((entry_slots, len(LEVELS), 2), dtype=np.int64)
        self._cluster_of_entry = np.full(entry_slots, -1, dtype=np.int64)
        self._state: _State | None = None
        self._observed = 0

    def observe(self, *, cluster: int | str, entry: int | str, probability: float, right: bool) -> None:
        """Count one labelled look-up, served or not.

        Args:
            cluster: What the entry belongs to, such as its answer; one entry, one cluster.
            entry: Whose answer was asked about.
            probability: What the scorer said, in [0, 1].
            right: Whether the answer is right.

        Raises:
            InvalidParameterError: If the probability is out of range.
        """
        if not 0 <= probability <= 1:
            raise InvalidParameterError("probability", rule="in [0, 1]", value=probability)
        level = _level(probability)
        group, place = _slot(cluster, len(self._clusters)), _slot(entry, len(self._entries))
        self._clusters[group, level, int(right)] += 1
        self._entries[place, level, int(right)] += 1
        # Entries of two clusters may share a place: the smaller number stands, whichever came first.
        known = int(self._cluster_of_entry[place])
        self._cluster_of_entry[place] = group if known < 0 else min(known, group)
        self._state = None
        self._observed += 1

    @property
    def observed(self) -> int:
        """Labelled look-ups counted."""
        return self._observed

    def threshold(self, *, cluster: int | str, entry: int | str) -> float:
        """Return the threshold for one entry, in (0, 1), or the pool's own without any evidence.

        The first call after `observe` reads all counts; later ones are quick, and those for the same entry quicker.

        Args:
            cluster, entry: As in `observe`; both may be unknown.
        """
        if self.pool > 1 or not self.observed:
            return self.pool
        shift = self._shift(_slot(cluster, len(self._clusters)), _slot(entry, len(self._entries)))
        if shift == 0:
            return self.pool
        pool = min(max(self.pool, 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(shift - math.log(pool / (1 - pool))))

    def _shift(self, group: int, place: int) -> float:
        state = self._state = self._state or _State.of(self._clusters, self._entries, self._cluster_of_entry)
        found = state.shifts.get((group, place))
        if found is None:
            cluster, above = _mode(self._clusters[group], offset=state.pool, variance=state.cluster_variance)
            entry, own = _mode(self._entries[place], offset=state.pool + cluster, variance=state.entry_variance)
            mean = state.pool + cluster + entry
            deviation = math.sqrt(state.pool_variance + above + own)
            found = mean if mean <= 0 else max(0.0, mean - self.caution * deviation)
            if len(state.shifts) < _MOST_REMEMBERED:
                state.shifts[group, place] = found
        return found

    def to_document(self) -> dict[str, Any]:
        """Return everything as plain JSON-able values; only places in use are listed."""
        return {
            "schema": SCHEMA,
            "pool": self.pool,
            "caution": self.caution,
            "clusters": _listed(self._clusters),
            "entries": _listed(self._entries) | {"cluster": packed(self._cluster_of_entry[_used(self._entries)])},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "PooledThresholds":
        """Return the thresholds that `to_document` described.

        Raises:
            InvalidParameterError: If the schema is another, or something is missing or damaged.
        """
        if document.get("schema") != SCHEMA:
            raise InvalidParameterError("schema", rule=repr(SCHEMA), value=document.get("schema"))
        try:
            clusters, entries = document["clusters"], document["entries"]
            made = cls(
                pool=float(document["pool"]),
                caution=float(document["caution"]),
                cluster_slots=int(clusters["slots"]),
                entry_slots=int(entries["slots"]),
            )
            made._clusters[unpacked(clusters["places"])] = unpacked(clusters["counts"])
            made._entries[unpacked(entries["places"])] = unpacked(entries["counts"])
            made._cluster_of_entry[unpacked(entries["places"])] = unpacked(entries["cluster"])
            made._observed = int(made._clusters.sum())
        except (KeyError, TypeError, IndexError, ValueError) as error:
            if isinstance(error, InvalidParameterError):
                raise
            raise InvalidParameterError("thresholds", rule="a whole document", value=repr(error)) from None
        return made


class _State:
    """What all counts together say: the pool's shift, its variance, and the variances below it."""

    def __init__(self, *, pool: float, pool_variance: float, cluster_variance: float, entry_variance: float) -> None:
        self.pool, self.pool_variance = pool, pool_variance
        self.cluster_variance, self.entry_variance = cluster_variance, entry_variance
        self.shifts: dict[tuple[int, int], float] = {}

    @classmethod
    def of(cls, clusters: Counts, entries: Counts, cluster_of_entry: Counts) -> "_State":
        pool, pool_variance = _mode(clusters.sum(axis=0), offset=0.0, variance=_POOL_VARIANCE)
        used = _used(clusters)
        cluster_variance = _variance(clusters[used], np.full(len(used), pool))
        shifts = np.zeros(len(clusters))
        shifts[used] = _modes(clusters[used], offset=pool, variance=cluster_variance)
        below = _used(entries)
        entry_variance = _variance(entries[below], pool + shifts[cluster_of_entry[below]])
        return cls(
            pool=pool, pool_variance=pool_variance, cluster_variance=cluster_variance, entry_variance=entry_variance
        )


def _mode(counts: Counts, *, offset: float, variance: float) -> tuple[float, float]:
    """Return the posterior mode of a shift beyond an offset, and its variance there before any shift."""
    if not counts.any():
        return 0.0, variance
    chances = probabilities(_LOGITS + offset)
    information = float(np.sum(counts.sum(axis=1) * chances * (1 - chances)))
    return float(_modes(counts[None], offset=offset, variance=variance)[0]), 1 / (information + 1 / variance)


def _modes(counts: Counts, *, offset: float, variance: float) -> Array:
    """Return posterior modes for counts (n, levels, 2), by Newton steps of at most 1."""
    rights, totals = counts[:, :, 1].sum(axis=1).astype(np.float64), counts.sum(axis=2)
    shifts = np.zeros(len(counts))
    for _ in range(_NEWTON_STEPS):
        chances = probabilities(_LOGITS + offset + shifts[:, None])
        slope = rights - np.sum(totals * chances, axis=1) - shifts / variance
        curvature = np.sum(totals * chances * (1 - chances), axis=1) + 1 / variance
        shifts = shifts + np.clip(slope / curvature, -1.0, 1.0)
    return shifts


def _variance(counts: Counts, offsets: Array) -> float:
    """Return the variance of shifts that counts (n, levels, 2) show beyond their offsets (n,)."""
    chances = probabilities(_LOGITS + offsets[:, None])
    totals = counts.sum(axis=2)
    surplus = counts[:, :, 1].sum(axis=1) - np.sum(totals * chances, axis=1)
    information = np.sum(totals * chances * (1 - chances), axis=1)
    found = np.sum(surplus**2 - information) + PRIOR_WEIGHT * PRIOR_VARIANCE
    return float(np.clip(found / (np.sum(information**2) + PRIOR_WEIGHT), 1e-4, _MOST_VARIANCE))


def _level(probability: float) -> int:
    limited = min(max(probability, 1e-9), 1 - 1e-9)
    return int(np.searchsorted(_BORDERS, np.log(limited / (1 - limited))))


def _slot(key: int | str, slots: int) -> int:
    return zlib.crc32(f"{type(key).__name__} {key}".encode()) & (slots - 1)


def _used(counts: Counts) -> NDArray[np.intp]:
    return np.flatnonzero(counts.any(axis=(1, 2)))


def _listed(counts: Counts) -> dict[str, Any]:
    used = _used(counts)
    return {"slots": len(counts), "places": packed(used.astype(np.int64)), "counts": packed(counts[used])}

"""Streams whose questions change after calibration, with and without the watch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._cascade import methods
from benchmarks._cascade.chains import Scorers
from benchmarks._cascade.recorded import Array, Recorded
from benchmarks._cascade.splits import CONFIDENCE, provable_margin, split
from halve.gate.anytime import ShadowLoss
from halve.techniques.inference.cascading.chains import Chain, run_chain
from halve.techniques.inference.cascading.guarantee import CertifiedChain
from halve.techniques.inference.cascading.watch import Watch

BEFORE, AFTER = 20_000, 180_000
"""Requests like those of calibration, then of the shifted part; drawn with replacement from unseen questions."""

PROPENSITY = 0.1
JUDGED = 40_000
"""The last requests, on which the promise must hold again."""

GUARD = 0.7
"""The watch acts when the promise is about to break: on evidence that more than this share of it is lost."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What happened in one stream.

    Args:
        margin: The promise.
        unwatched_before, unwatched_drop: Mean drop of the chain before the shift and over the last requests of the
            stream, without a watch.
        watched_drop: The same with it, over the last requests.
        false_alarm: Whether the watch acted before the shift although the chain kept the promise there.
        actions: How often it tightened or switched off.
        shadow_share: USD of shadow calls per USD that the strong model alone would have cost.
        saving_rate: With the watch, shadow calls included, over the whole stream.
    """

    margin: float
    unwatched_before: float
    unwatched_drop: float
    watched_drop: float
    false_alarm: bool
    actions: int
    shadow_share: float
    saving_rate: float

    @property
    def broken(self) -> bool:
        """Return whether the shift breaks the promise when nobody watches."""
        return self.unwatched_drop > self.margin

    @property
    def clearly_broken(self) -> bool:
        """Return whether it loses half as much again as promised."""
        return self.unwatched_drop > 1.5 * self.margin

    @property
    def restored(self) -> bool:
        return self.watched_drop <= self.margin


def stream(recorded: Recorded, seed: int) -> Stream | None:
    """Return one stream: calibrated on questions outside the shifted part; None if nothing was certified."""
    usual, odd = np.flatnonzero(~recorded.shifted), np.flatnonzero(recorded.shifted)
    part = split(recorded.questions, seed, pool=usual)
    margin = provable_margin(len(part.certify))
    scorers = Scorers(recorded, part.search, methods.OURS)
    certified = methods.certified(recorded, part, margin, scorers)
    if certified.chain is None:
        return None
    random = np.random.default_rng([seed, 5])
    rows = np.concatenate([part.test, odd])  # all questions that can come, each once
    before, after = random.integers(len(part.test), size=BEFORE), random.integers(len(part.test), len(rows), size=AFTER)
    coming = np.concatenate([before, after])
    strong = recorded.strong
    runs = [run_chain(scorers.table(chain.names, rows), chain) for chain in _fallbacks(certified)]
    losses = np.stack([*(recorded.scores[strong, rows] - run.scores for run in runs), np.zeros(len(rows))])
    costs = np.stack([*(run.usd for run in runs), recorded.usd[strong, rows]])
    by_strong = [
        run.asked[-1] & (chain.names[-1] == recorded.answerers[strong])
        for run, chain in zip(runs, _fallbacks(certified), strict=True)
    ]
    free = np.stack([*by_strong, np.ones(len(rows), dtype=np.bool_)])
    strong_usd = recorded.usd[strong, rows][coming]
    return _served(strong_usd, losses[:, coming], costs[:, coming], free[:, coming], margin=margin, random=random)


def _fallbacks(certified: CertifiedChain) -> list[Chain]:
    """Return the chain in force, the certified one half-way to the most cautious, and the most cautious."""
    chosen = next(place for place, test in enumerate(certified.passed) if test.chain == certified.chain)
    places = sorted({chosen, chosen // 2, 0}, reverse=True)
    return [certified.passed[place].chain for place in places]


def _served(
    strong_usd: Array, losses: Array, costs: Array, free_shadows: Any, *, margin: float, random: np.random.Generator
) -> Stream:
    watch = Watch(
        settings=[f"chain {place}" for place in range(len(losses) - 1)],
        evidence=lambda: ShadowLoss(loss_at_most=GUARD * margin, confidence=CONFIDENCE, least_propensity=PROPENSITY),
        loss_at_most=GUARD * margin,
        confidence=CONFIDENCE,
    )
    total = losses.shape[1]
    in_force, last, acted_before = np.empty(total, dtype=np.int64), 0, False
    shadows = np.flatnonzero(random.random(total) < PROPENSITY)
    for at in shadows.tolist():
        if watch.is_off:
            break
        in_force[last : at + 1] = watch.place
        verdict = watch.shadow(float(losses[watch.place, at]), propensity=PROPENSITY, skipped=at - last)
        acted_before |= verdict.action != "keep" and at < BEFORE
        last = at + 1
    in_force[last:] = watch.place
    each = np.arange(total)
    watched, spent = losses[in_force, each], costs[in_force, each]
    shadowed = shadows[~free_shadows[in_force[shadows], shadows]]
    shadow_usd, strong_only = float(strong_usd[shadowed].sum()), float(strong_usd.sum())
    before = float(losses[0, :BEFORE].mean())
    return Stream(
        margin=margin,
        unwatched_before=before,
        unwatched_drop=float(losses[0, -JUDGED:].mean()),
        watched_drop=float(watched[-JUDGED:].mean()),
        false_alarm=bool(acted_before and before <= GUARD * margin),
        actions=watch.place,
        shadow_share=shadow_usd / strong_only,
        saving_rate=1 - (float(spent.sum()) + shadow_usd) / strong_only,
    )

"""One seed on one set: every contestant on the same neighbours, as counts by name."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks._semantic_cache import ours, peers, per_entry
from benchmarks._semantic_cache.data import OUT_OF_SCOPE, Intents, QuestionPairs, intents, question_pairs
from benchmarks._semantic_cache.figures import Scored, Served
from benchmarks._semantic_cache.streams import Splits, intent_splits, judged, pair_splits
from halve.techniques.inference.caching.semantic.policy import HitPolicy

TARGETS: Mapping[str, tuple[float, ...]] = {
    "qqp": (0.10, 0.15, 0.20),
    "qqp_judged": (0.10, 0.15, 0.20),
    "clinc_05": (0.01, 0.02, 0.05),
    "clinc_10": (0.01, 0.02, 0.05),
    "clinc_20": (0.01, 0.02, 0.05),
}
"""Largest false-hit shares that are promised, by set; `clinc_05` has a capacity of 5 % of the distinct queries."""

QUICK_PART, QUICK_INTENTS = 8_000, 10_000
"""Questions per part of QQP, and queries of CLINC150 in all, when quick."""

DELTAS = (0.005, 0.01, 0.02, 0.05, 0.1)
"""What the per-entry rule may be told; the best on the calibration stream is taken."""

Counts = dict[str, list[int]]
"""By contestant, setting and target: look-ups, hits, wrong hits."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One seed on one set."""

    set_name: str
    seed: int
    quick: bool


def name(contestant: str, setting: str, target: float | None = None) -> str:
    """Return the key of a count."""
    return f"{contestant}|{setting}" if target is None else f"{contestant}|{setting}|{target:.2f}"


def one_seed(job: Job) -> Counts:
    """Return what every contestant did on the scored stream.

    Settings: `default`; `calibrated`, the threshold with the most hits within the target on the calibration stream;
    `on_test`, the same on the scored stream itself, which nobody can know beforehand; `bounded`, chosen with a
    guarantee on the calibration stream, ours as it is meant, and peers as if they had our way of choosing.
    """
    splits, texts, labels = _splits(job)
    served: dict[str, Served] = {}
    for family, rule in peers.FAMILIES.items():
        calibration, test = rule(splits.calibration, texts), rule(splits.test, texts)
        served |= _tuned(family, calibration, test, TARGETS[job.set_name])
        served |= {name(peer, "default"): test.served(at) for peer, at in peers.DEFAULTS[family].items()}
        train = [rule(stream, texts) for stream in splits.train]
        calibration, test = (ours.as_probabilities(one, train=train) for one in (calibration, test))
        served |= _bounded(family, test, ours.thresholds(calibration, TARGETS[job.set_name]))
    served |= _per_entry(job, splits, labels)
    mine = ours.decided(splits, labels.questions, targets=TARGETS[job.set_name])
    served |= _tuned("halve", mine.calibration, mine.test, TARGETS[job.set_name])
    served |= _bounded("halve", mine.test, mine.thresholds)
    return {key: [value.lookups, value.hits, value.wrong] for key, value in served.items()}


def _bounded(contestant: str, test: Scored, thresholds: Mapping[float, float]) -> dict[str, Served]:
    return {name(contestant, "bounded", target): test.served(at) for target, at in thresholds.items()}


def trained(job: Job) -> None:
    """Fit the scorers that this seed shares with others, so that two workers do not fit the same ones at once."""
    splits, _, labels = _splits(job)
    ours.fitted(splits.train, labels.questions)


def policy_of(job: Job, *, target: float) -> HitPolicy:
    """Return what this seed would serve with."""
    splits, _, labels = _splits(job)
    assessor = ours.fitted(splits.train, labels.questions)
    calibration = ours.scored(assessor, splits.calibration, labels.questions)
    return HitPolicy(threshold=ours.thresholds(calibration, [target])[target], assessor=assessor)


def _tuned(contestant: str, calibration: Scored, test: Scored, targets: tuple[float, ...]) -> dict[str, Served]:
    found = {}
    for target in targets:
        for setting, stream in (("calibrated", calibration), ("on_test", test)):
            found[name(contestant, setting, target)] = test.served(stream.best_threshold(most=target))
    return found


def _per_entry(job: Job, splits: Splits, labels: QuestionPairs | Intents) -> dict[str, Served]:
    """Return the rule with the delta that had the most hits within the target on the calibration stream, or none."""
    test = {delta: per_entry.replay(splits.test, delta=delta, seed=job.seed) for delta in DELTAS}
    tried = {"vcache rule": ({d: per_entry.replay(splits.calibration, delta=d, seed=job.seed) for d in DELTAS}, test)}
    if isinstance(labels, Intents):
        tried["vcache rule, own contents"] = _own_contents(job, splits, labels)
    found = {}
    for contestant, (calibration, scored) in tried.items():
        for target in TARGETS[job.set_name]:
            allowed = [delta for delta in DELTAS if calibration[delta].false_hit_share <= target]
            best = max(allowed, key=lambda delta: calibration[delta].hits, default=None)
            nothing = Served(lookups=len(splits.test), hits=0, wrong=0)
            found[name(contestant, "calibrated", target)] = nothing if best is None else scored[best]
    return found


def _own_contents(job: Job, splits: Splits, labels: Intents) -> tuple[dict[float, Served], dict[float, Served]]:
    """Return what it does on both streams; before each it has learned from another stream as long."""
    share = int(job.set_name.removeprefix("clinc_")) / 100
    capacity = max(1, round(share * len(splits.test)))

    def same(one: int, other: int) -> bool:
        return bool(labels.intent[one] == labels.intent[other] != OUT_OF_SCOPE)

    def run(before: np.ndarray, asked: np.ndarray, delta: float) -> Served:
        return per_entry.replay_own_contents(
            labels.questions.vectors, same, np.concatenate([before, asked]), warm_up=len(before), capacity=capacity,
            delta=delta, seed=job.seed,
        )  # fmt: skip

    train, calibration, test = splits.train[0].asked, splits.calibration.asked, splits.test.asked
    return (
        {delta: run(train[-len(calibration) :], calibration, delta) for delta in DELTAS},
        {delta: run(calibration, test, delta) for delta in DELTAS},
    )


def _splits(job: Job) -> tuple[Splits, tuple[str, ...], QuestionPairs | Intents]:
    if job.set_name.startswith("qqp"):
        pairs = loaded_pairs()
        splits = pair_splits(pairs, seed=job.seed, part_size=QUICK_PART if job.quick else None)
        if job.set_name == "qqp_judged":
            train = tuple(judged(pairs, stream) for stream in splits.train)
            others = (judged(pairs, stream) for stream in (splits.calibration, splits.test))
            splits = Splits(train=train, calibration=next(others), test=next(others))
        return splits, pairs.questions.texts, pairs
    queries = loaded_intents()
    share = int(job.set_name.removeprefix("clinc_")) / 100
    splits = intent_splits(queries, seed=job.seed, capacity_share=share, size=QUICK_INTENTS if job.quick else None)
    return splits, queries.questions.texts, queries


loaded_pairs = functools.cache(question_pairs)
loaded_intents = functools.cache(intents)

"""The promise behind every certificate, by simulation: it is false at most alpha of the time."""

import math

import numpy as np
import pytest

from halve.core import Latency, Measurement, Objective
from halve.gate import PairedGate, drop_upper_bound, power_to_certify

LADDERS = 2_000
N = 250
OBJECTIVE = Objective(quality_drop_at_most=0.04, confidence=0.9)
ALPHA = 1 - OBJECTIVE.confidence
DISCORDANCE = 0.06
LATENCY = Latency.of(np.ones(1))


def draw(rng, drops):
    """Scores of a baseline (90 % right) and of candidates with these true drops: tuples of 0 and 1."""
    right = rng.random(N) < 0.9
    rows = [right]
    for drop in drops:
        lost = right & (rng.random(N) < (DISCORDANCE + drop) / 2 / 0.9)
        gained = ~right & (rng.random(N) < (DISCORDANCE - drop) / 2 / 0.1)
        rows.append((right & ~lost) | gained)
    return np.array(rows, dtype=np.float64)


def measurement(values, split):
    return Measurement(
        stack="s", provenance="simulated", split=split, scores=tuple(values.tolist()), ledger=(), latency=LATENCY,
        utilization={}, stage_share={}, instances={}, peak_memory_bytes=0, n_requests=1,
    )  # fmt: skip


def certify(gate, scores):
    baseline, *steps = (measurement(row, "certify") for row in scores)
    return gate.certify(baseline=baseline, steps=[("lever", "rung", step) for step in steps])


@pytest.mark.parametrize(
    "rungs",
    [
        [[0.0, 0.0, 0.0], [0.01, 0.01, 0.01], [0.04, 0.04, 0.04]],
        [[0.04, 0.04, 0.04], [0.04, 0.04, 0.04]],
        [[0.0, 0.02, 0.04], [0.02, 0.03, 0.04], [0.04, 0.045, 0.05]],
    ],
    ids=[
        "only the last rung breaks the promise",
        "every rung sits at the margin",
        "winners picked among mixed settings",
    ],
)
def test_false_certificates_are_at_most_alpha(rungs):
    gate = PairedGate(objective=OBJECTIVE)
    rng = np.random.default_rng(20_24)
    false = 0
    for _ in range(LADDERS):
        search = draw(rng, [drop for rung in rungs for drop in rung])
        picked, at = [], 1
        for rung in rungs:  # each rung keeps the setting that looks best on the search split
            best = int(np.argmax(search[at : at + len(rung)].mean(axis=1)))
            picked.append(rung[best])
            at += len(rung)
        steps = certify(gate, draw(rng, picked)).steps
        false += any(step.passed and drop >= 0.04 for step, drop in zip(steps, picked, strict=False))
    assert false / LADDERS <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / LADDERS)
    assert false > 0  # the ladders do put the promise to the test


def test_the_search_split_itself_would_certify_falsely():
    # Why the certificate needs examples of its own: the best of 20 settings at the margin often looks fine.
    rng = np.random.default_rng(7)
    false = 0
    for _ in range(200):
        baseline, *settings = draw(rng, [0.04] * 20)
        winner = max(settings, key=np.mean)
        false += drop_upper_bound(baseline, winner, confidence=OBJECTIVE.confidence) <= 0.04
    assert false / 200 > 3 * ALPHA


def test_good_ladders_are_certified_as_often_as_power_says():
    gate = PairedGate(objective=OBJECTIVE)
    rng = np.random.default_rng(1)
    held = sum(all(step.passed for step in certify(gate, draw(rng, [0.0])).steps) for _ in range(500))
    stated = power_to_certify(N, discordance=DISCORDANCE, margin=0.04, confidence=OBJECTIVE.confidence)
    assert stated > 0.75
    assert held / 500 >= stated - 3 * math.sqrt(stated * (1 - stated) / 500)

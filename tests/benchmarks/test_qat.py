"""The paired interval of the training benchmark, and how it names the best peer."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import qat


def rights(*shares, n=1000, seed=0):
    return np.random.default_rng(seed).random((len(shares), n)) < np.array(shares)[:, None]


def test_the_difference_is_in_points_and_averages_seeds_first():
    better = np.array([[True, True, True, True], [True, True, True, False]])
    worse = np.array([[True, False, True, False]])
    found = qat.mean_difference(better, worse)
    assert found.median == pytest.approx(100 * (7 / 8 - 1 / 2))
    points = 100 * np.array([0.0, 1.0, 0.0, 0.5])
    assert found.high - found.median == pytest.approx(1.96 * points.std(ddof=1) / 2)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        draws = random.random(2_000)
        better, worse = draws[None] < 0.92, (draws[None] < 0.90) ^ (random.random((1, 2_000)) < 0.02)
        true = 100 * (0.92 - (0.90 * 0.98 + 0.10 * 0.02))
        found = qat.mean_difference(better, worse)
        covered += found.low <= true <= found.high
    assert covered / 400 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)


def test_the_lead_is_over_the_best_peer_and_a_failed_peer_is_named():
    def tool(share, seed):
        one = {"rate": 0.01}
        for bits in qat.BITS:
            one |= {bits: rights(share, seed=seed), f"{bits} ptq": rights(0.5, seed=9), f"{bits} parity": 1.0}
        return one

    fp32 = rights(0.95)
    found = {"halve": tool(0.9, 0), "brevitas": tool(0.7, 0), "torchao": tool(0.8, 0)}
    found["gone"] = {"failed": "no wheel"}
    result = qat.summary(found, fp32)
    lead = result.figures["w4a4_minus_best_peer_points"]
    assert lead.median == pytest.approx(qat.mean_difference(rights(0.9), rights(0.8)).median)
    assert result.figures["w4a4_accuracy_drop_points"].median == pytest.approx(5, abs=3)
    assert result.peers["gone"] == {"failed": "no wheel"}

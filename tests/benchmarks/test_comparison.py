"""The numbers that the quantization benchmark prints, on answers whose errors are known."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def comparison():
    sys.path.insert(0, str(ROOT))
    yield importlib.import_module("benchmarks._peers.comparison")
    sys.path.remove(str(ROOT))


@pytest.fixture
def finding(comparison):
    def make(tool, *, seconds, error, changed=0.0, method="int8"):
        rounds = {1: np.full((7, 3), seconds)}
        return comparison.Finding(
            tool=tool, method=method, model="m", relative_rmse=error, disagreement=changed, rounds=rounds, rows=200
        )

    return make


def test_the_error_is_relative_to_the_spread_of_fp32(comparison):
    fp32 = np.array([[1.0, -1.0], [-1.0, 1.0]], dtype=np.float32)
    assert comparison.relative_rmse(fp32, fp32=fp32) == 0
    assert comparison.relative_rmse(fp32 + 0.5, fp32=fp32) == pytest.approx(0.5)
    assert comparison.relative_rmse(10 * fp32 + 5, fp32=10 * fp32) == pytest.approx(0.5)


def test_disagreement_counts_rows_whose_largest_moved(comparison):
    fp32 = np.eye(4)
    changed = fp32.copy()
    changed[0] = [0, 5, 0, 0]
    changed[1] *= 7
    assert comparison.disagreement(changed, fp32=fp32) == 0.25


def test_the_ratio_of_flips_is_a_number_without_flips(comparison):
    assert comparison.smoothed_ratio(0.0, 0.0, n=100) == 1
    assert comparison.smoothed_ratio(0.0, 0.1, n=100) == pytest.approx(0.5 / 10.5)
    assert comparison.smoothed_ratio(0.1, 0.0, n=100) == pytest.approx(21)


def test_only_the_faster_and_more_accurate_dominate(comparison, finding):
    ours = finding("halve", seconds=2.0, error=0.02, changed=0.01)
    peers = [
        finding("better", seconds=1.0, error=0.01, changed=0.01),
        finding("slower", seconds=3.0, error=0.01),
        finding("equal", seconds=2.0, error=0.01),
        finding("worse", seconds=1.0, error=0.03),
        finding("flips", seconds=1.0, error=0.01, changed=0.02),
        finding("untouched", seconds=1.0, error=0.0),
        finding("fp32", seconds=1.0, error=0.01, method="fp32"),
    ]
    assert comparison.dominating(ours, peers) == ["better int8 on m at batch 1"]


def test_a_lead_inside_the_noise_does_not_dominate(comparison, finding):
    ours = finding("halve", seconds=1.0, error=0.02)
    peer = finding("noisy", seconds=1.0, error=0.01)
    peer.rounds[1] = np.repeat([[0.5], [0.5], [0.5], [0.5], [1.5], [1.5], [1.5]], 3, axis=1)
    assert comparison.speed_ratio(ours, peer, batch=1).median == 2
    assert comparison.dominating(ours, [peer]) == []


def test_the_best_peer_is_one_that_quantized(comparison, finding):
    ours = finding("halve", seconds=1.0, error=0.04)
    failed = finding("failed", seconds=1.0, error=0.0)
    failed.problem = "cannot be installed"
    peers = [failed, finding("untouched", seconds=1.0, error=1e-7), finding("good", seconds=1.0, error=0.05)]
    assert comparison.least_error_ratio(ours, peers) == (pytest.approx(0.8), "good int8")
    assert comparison.least_error_ratio(ours, peers[:2]) is None


def test_rounds_have_enough_runs_and_not_too_many(comparison):
    assert comparison.runs_per_round(1.0, seconds=0.1) == 1
    assert comparison.runs_per_round(0.01, seconds=0.105) == 10
    assert comparison.runs_per_round(1e-6, seconds=0.1) == 200


def test_cells_and_values_agree(finding):
    one = finding("halve", seconds=0.001, error=0.0123, changed=0.05)
    values = one.values()
    assert values["p50_seconds_batch_1"].median == 0.001
    assert one.cells([1])[:2] == ["5.00", "0.0123"]
    assert one.cells([1])[-2:] == ["1.000", "1.000"]

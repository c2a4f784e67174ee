"""What the pruning benchmark computes around its runs: curves, paired intervals, figures, what is in the hash."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from benchmarks import pruning as bench


def test_a_curve_is_linear_between_its_points_and_silent_outside():
    curve = [(3.0, 0.94), (1.0, 0.90)]
    assert bench.at_latency(curve, 2.0) == pytest.approx(0.92)
    assert bench.at_latency(curve, 1.0) == 0.90
    assert bench.at_latency(curve, 0.9) is None
    assert bench.at_latency([], 1.0) is None


def test_differences_are_paired_by_image():
    better, worse = np.array([True, True, False, True]), np.array([True, False, False, True])
    found = bench.difference(better, worse)
    # Per image 0, 100, 0, 0 points.
    assert found.median == pytest.approx(25)
    assert found.high == pytest.approx(25 + 1.96 * np.std([0, 100, 0, 0], ddof=1) / 2)


def test_the_code_that_matters_is_in_the_hash():
    assert len(bench.code_hash()) == 16
    assert bench.code_hash() == bench.code_hash()


def test_the_figures_of_the_issue(monkeypatch):
    monkeypatch.setattr(bench, "measure_sparsity_speed", lambda: type("S", (), {"speedups": {"half": 1.0}}))
    rng = np.random.default_rng(0)

    def rights(share):
        return rng.random(2000) < share, np.arange(2000) < 2000 * share

    parent = np.full(9, 10.0)
    names = {
        "parent": (10.0, 0.95),
        "parent int8": (4.0, 0.94),
        "halve 0.5": (4.8, 0.95),
        "halve 0.3": (2.5, 0.90),
        "halve 0.5 int8": (2.0, 0.945),
        "halve 0.3 int8": (1.0, 0.85),
        "torch-pruning uniform 0.3": (5.8, 0.95),
        "torch-pruning uniform 0.5": (3.8, 0.93),
    }
    seconds = {name: parent * seconds / 10 for name, (seconds, _) in names.items()}
    scored = {name: rights(share) for name, (_, share) in names.items()}
    ours, theirs = ["halve 0.5", "halve 0.3"], ["torch-pruning uniform 0.3", "torch-pruning uniform 0.5"]
    result = bench.summary(seconds, scored, ours=ours, theirs=theirs)
    figures = result.figures
    assert figures["drop_points_at_2x"].median == pytest.approx(0)
    assert figures["speedup_at_2x"].median == pytest.approx(10 / 4.8)
    assert figures["chain_chosen"] == "halve 0.5 int8"  # the faster one loses 10 points
    assert figures["chain_speedup_at_1_point"].median == pytest.approx(5)
    # torch-pruning at 4.8: halfway between 0.93 and 0.95.
    assert figures["minus_torch_pruning_points_at_equal_latency"] == pytest.approx(1.0)
    assert figures["sparsity_speedup_half"] == 1.0
    assert set(result.peers) == {"torch-pruning uniform 0.3", "torch-pruning uniform 0.5"}
    # With its fast point alone, at 4.8 it lies between that, 3.8, and the parent, 10.
    fewer = bench.summary(seconds, scored, ours=ours, theirs=theirs[1:]).figures
    expected = 100 * (0.95 - (0.93 + 0.02 * (4.8 - 3.8) / (10 - 3.8)))
    assert fewer["minus_torch_pruning_points_at_equal_latency"] == pytest.approx(expected)

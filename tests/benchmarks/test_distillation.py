"""The intervals of the distillation benchmark, and what its figures are made of."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import distillation


def test_the_interval_is_students():
    # mean 2, deviation 1, n = 3: t(0.975, 2) = 4.302653; 4.302653 / sqrt 3 = 2.484138.
    found = distillation.interval([1.0, 2.0, 3.0])
    assert (found.median, found.low, found.high) == pytest.approx((2.0, -0.484138, 4.484138), abs=1e-5)
    alone = distillation.interval([5.0])
    assert (alone.low, alone.median, alone.high) == (5.0, 5.0, 5.0)


def test_it_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [distillation.interval(draws) for draws in random.normal(1.0, 2.0, (2000, 5))]
    covered = np.mean([one.low <= 1.0 <= one.high for one in found])
    assert abs(covered - 0.95) < 0.02


def test_gains_are_paired_and_the_figure_is_the_lower_end():
    accuracies = {
        "vision": {
            "halve": [92.0, 92.2, 92.4],
            "cross_entropy": [91.0, 91.2, 91.4],
            "halve_labelled_rows": [91.1, 91.3, 91.5],
            "hand_written": [91.5, 91.6, 91.7],
            "torchdistill": [91.5, 91.6],
        }
    }
    cost = {1: {"teacher": 100.0, "student": 4.0, "ratio": 25.0}, 32: {"teacher": 90.0, "student": 3.0, "ratio": 30.0}}
    result = distillation.summary(accuracies, {"vision": 93.0}, {"vision": (20.0, 3.0)}, cost)
    assert result.figures["vision_gain_over_cross_entropy_points"] == pytest.approx(1.0)
    assert result.figures["vision_gain_on_labelled_rows_points"].median == pytest.approx(0.1)
    assert result.figures["vision_drop_points"] == pytest.approx(0.8)
    assert result.figures["vision_intervals_overlap"] == "no"
    assert result.figures["intents_cost_ratio"] == 25.0
    assert result.figures["teacher_cache_bytes_per_example"] == 20.0
    assert result.peers["torchdistill"]["vision_accuracy"].median == pytest.approx(91.55)

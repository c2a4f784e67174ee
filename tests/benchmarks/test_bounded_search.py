"""The rules that the search benchmark compares: ours, Neural Compressor's, and what counts as a violation."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from benchmarks._peers_training.network import depthwise
from benchmarks._peers_training.neural_compressor import rule
from benchmarks._peers_training.searching import validation_rows

from benchmarks import bounded_search

N = 2_000


def wrong(*rows):
    right = np.ones(N, dtype=bool)
    right[list(rows)] = False
    return right


def test_the_sequence_stops_at_the_first_failure_even_if_a_later_one_would_pass():
    good, bad = wrong(*range(2)), wrong(*range(100))
    assert bounded_search.fixed_sequence(wrong(), [good, bad, good]) == (0, 2)
    assert bounded_search.fixed_sequence(wrong(), [bad, good]) == (None, 1)
    assert bounded_search.fixed_sequence(wrong(), [good, good]) == (1, 2)


def test_a_candidate_just_beyond_the_tolerance_passes_at_most_as_often_as_promised():
    random, passed = np.random.default_rng(5), 0
    for _ in range(300):
        pairs = random.choice(
            3, size=N, p=[0.0201, 0.0100, 0.9699]
        )  # only the baseline right, only the candidate, both
        baseline, candidate = pairs != 1, pairs != 0
        number, _ = bounded_search.fixed_sequence(baseline, [candidate])
        passed += number is not None
    assert passed / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_neural_compressor_takes_the_first_within_the_loss_else_the_best():
    assert rule(0.90, [0.85, 0.895, 0.90], max_drop=0.01) == (1, 2)
    assert rule(0.90, [0.85, 0.88, 0.87], max_drop=0.01) == (1, 3)


def test_the_true_drop_is_of_the_images_that_the_search_did_not_see():
    chosen = wrong(0, 1, 2, 3)
    assert bounded_search.true_drop(wrong(), chosen, np.array([0, 1])) == pytest.approx(2 / (N - 2))


def test_validation_sets_are_distinct_rows_and_differ_by_seed():
    first, again, other = (validation_rows(seed, population=100, size=40) for seed in (1, 1, 2))
    assert len(set(first.tolist())) == 40
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


def test_rescaling_channels_leaves_the_answers_as_they_are():
    torch.manual_seed(0)
    network = depthwise().eval()
    images = torch.rand(16, 1, 28, 28)
    with torch.inference_mode():
        before = network(images)
    after = bounded_search.rescaled(network, deviation=1.0)
    with torch.inference_mode():
        torch.testing.assert_close(after(images), before, rtol=1e-3, atol=1e-4)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.mixture_of_experts.split import (
    always_on,
    balanced_clusters,
    contributions,
    split_by_activations,
    split_by_weights,
)

NONE = np.zeros(0, dtype=np.int64)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 7), st.integers(1, 4))
def test_clusters_are_of_exactly_the_same_size(seed, clusters, seats, dimensions):
    points = np.random.default_rng(seed).standard_normal((clusters * seats, dimensions))
    labels = balanced_clusters(points, clusters=clusters, seed=seed)
    assert np.bincount(labels, minlength=clusters).tolist() == [seats] * clusters


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_equal_points_are_shared_out_too(seed):
    assert np.bincount(balanced_clusters(np.ones((12, 2)), clusters=3, seed=seed)).tolist() == [4, 4, 4]


def test_separate_clouds_are_found():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    truth = rng.permutation(np.repeat(np.arange(3), 8))
    labels = balanced_clusters(centres[truth] + 0.1 * rng.standard_normal((24, 2)), clusters=3)
    assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 3


def test_no_swap_of_two_points_would_be_nearer():
    points = np.random.default_rng(2).standard_normal((24, 3))
    labels = balanced_clusters(points, clusters=4)
    centres = np.stack([points[labels == cluster].mean(0) for cluster in range(4)])
    cost = ((points[:, None] - centres) ** 2).sum(2)
    for one in range(24):
        for two in range(24):
            before = cost[one, labels[one]] + cost[two, labels[two]]
            assert before <= cost[one, labels[two]] + cost[two, labels[one]] + 1e-9


def test_the_same_seed_gives_the_same_clusters():
    points = np.random.default_rng(1).standard_normal((40, 5))
    np.testing.assert_array_equal(
        balanced_clusters(points, clusters=5, seed=3), balanced_clusters(points, clusters=5, seed=3)
    )


def test_similar_weights_go_together():
    directions = np.eye(3)[np.tile([0, 1, 2], 4)]
    split = split_by_weights(directions * np.linspace(0.5, 2, 12)[:, None], experts=3, shared=NONE)
    assert {tuple(row % 3) for row in split.experts} == {(0,) * 4, (1,) * 4, (2,) * 4}


def test_neurons_that_matter_for_the_same_tokens_go_together():
    # Token t concerns neurons t % 3, t % 3 + 3, ...
    activations = (np.arange(30)[:, None] % 3 == np.arange(12) % 3) * np.linspace(1, 2, 12)
    split = split_by_activations(activations, experts=3, shared=NONE)
    assert {tuple(row % 3) for row in split.experts} == {(0,) * 4, (1,) * 4, (2,) * 4}


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 4), st.floats(0, 0.6))
def test_every_neuron_has_one_place(seed, experts, share):
    mattering = np.random.default_rng(seed).random((20, 16))
    shared = always_on(mattering, share=share, experts=experts)
    for split in (
        split_by_activations(mattering, experts=experts, shared=shared),
        split_by_weights(mattering.T, experts=experts, shared=shared),
    ):
        assert sorted([*split.shared, *split.experts.flatten()]) == list(range(16))
        assert len(split.shared) >= 16 * share - 1e-6
        assert split.experts.shape[0] == experts


def test_shared_are_those_that_matter_most():
    mattering = np.tile([0.1, 5.0, 0.2, 4.0, 0.3, 0.4], (3, 1))
    assert always_on(mattering, share=1 / 3, experts=2).tolist() == [1, 3]


def test_contributions_by_hand():
    # Means are 2 and 5; |1 - 2| and |3 - 2| are 1; the columns have lengths 5 and 1.
    activations, second = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(contributions(activations, second), [[5.0, 0.0], [5.0, 0.0]])


def test_what_cannot_be_shared_out_is_named():
    with pytest.raises(InvalidParameterError, match="clusters"):
        balanced_clusters(np.ones((5, 2)), clusters=2)
    with pytest.raises(InvalidParameterError, match="points"):
        balanced_clusters(np.ones((0, 2)), clusters=1)
    with pytest.raises(InvalidParameterError, match="experts"):
        split_by_weights(np.ones((5, 2)), experts=2, shared=NONE)
    with pytest.raises(InvalidParameterError, match="shared_neurons_share"):
        always_on(np.ones((3, 4)), share=1.0, experts=2)
    with pytest.raises(InvalidParameterError, match="experts"):
        always_on(np.ones((3, 4)), share=0.6, experts=2)

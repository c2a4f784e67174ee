import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import network as module
from halve.techniques.inference.caching.semantic.network import NetworkRecipe, PairNetwork, fit_network, raw_inputs

QUICK = NetworkRecipe(width=16, epochs=6, batch=64)


def drawn(n=800, seed=0):
    rng = np.random.default_rng(seed)
    ones, others = (rng.normal(size=(n, 6)).astype(np.float32) for _ in range(2))
    features = rng.normal(size=(n, 2))
    features[:, 1] = 4.0
    right = (ones[:, 0] * others[:, 0] + 0.3 * features[:, 0]) > 0
    return features, ones, others, right


def test_it_learns_how_two_vectors_meet():
    features, ones, others, right = drawn()
    recipe = NetworkRecipe(width=32, epochs=60, batch=64)
    network = fit_network(features, ones, others, right, recipe=recipe)
    test_features, test_ones, test_others, answers = drawn(seed=1)
    assert np.mean((network.logits(test_features, test_ones, test_others) > 0) == answers) > 0.8


def test_it_does_not_matter_which_vector_comes_first():
    features, ones, others, right = drawn()
    network = fit_network(features, ones, others, right, recipe=QUICK)
    assert network.logits(features, ones, others).tolist() == network.logits(features, others, ones).tolist()


def test_the_same_arguments_give_the_same_network_and_another_seed_another():
    features, ones, others, right = drawn(n=200)
    first, again = (fit_network(features, ones, others, right, recipe=QUICK) for _ in range(2))
    other = fit_network(features, ones, others, right, recipe=NetworkRecipe(width=16, epochs=6, batch=64, seed=1))
    assert first.hidden.tobytes() == again.hidden.tobytes()
    assert first.hidden.tobytes() != other.hidden.tobytes()


def test_a_column_that_never_varied_says_nothing_later_either():
    features, ones, others, right = drawn()
    network = fit_network(features, ones, others, right, recipe=QUICK)
    assert network.scale[-1] == 0
    moved = features.copy()
    moved[:, 1] = 1e6
    assert network.logits(moved, ones, others).tolist() == network.logits(features, ones, others).tolist()


def test_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    weights = {
        "hidden": rng.normal(size=(5, 4)),
        "hidden_bias": rng.normal(size=4),
        "out": rng.normal(size=4),
        "out_bias": rng.normal(size=1),
    }
    inputs, labels = rng.normal(size=(7, 5)), (rng.random(7) < 0.5).astype(np.float64)

    def loss():
        hidden = np.maximum(inputs @ weights["hidden"] + weights["hidden_bias"], 0)
        logits = hidden @ weights["out"] + weights["out_bias"]
        return np.mean(np.logaddexp(0, logits) - labels * logits)

    found = module._gradients(weights, inputs, labels, 0.0, rng)
    for name, weight in weights.items():
        for place in np.ndindex(weight.shape):
            kept = weight[place]
            weight[place] = kept + 1e-6
            above = loss()
            weight[place] = kept - 1e-6
            below = loss()
            weight[place] = kept
            assert found[name][place] == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_dropout_keeps_the_expected_input():
    mask = module._mask((200, 200), 0.3, np.random.default_rng(0))
    assert set(np.unique(mask)) == {0, np.float32(1) / np.float32(0.7)}
    assert mask.mean() == pytest.approx(1, abs=0.02)


def test_inputs_by_hand():
    found = raw_inputs(np.array([[7.0]]), np.array([[1, 2]], np.float32), np.array([[3, -1]], np.float32))
    assert found.tolist() == [[2, 3, 3, -2, 4, 1, 7]]


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 40])
def test_products_in_parts_are_the_product(rows):
    generator = np.random.default_rng(rows)
    inputs = generator.normal(size=(rows, 1200)).astype(np.float32)
    weights = generator.normal(size=(1200, 131)).astype(np.float32)
    found = module._product(inputs, weights)
    assert (found.shape, found.dtype) == ((rows, 131), np.float32)
    np.testing.assert_allclose(found, inputs.astype(np.float64) @ weights, atol=1e-3)


def test_arrays_and_back():
    features, ones, others, right = drawn(n=100)
    network = fit_network(features, ones, others, right, recipe=QUICK)
    again = PairNetwork.from_arrays(network.arrays())
    assert again.logits(features, ones, others).tobytes() == network.logits(features, ones, others).tobytes()
    with pytest.raises(InvalidParameterError, match="arrays whose shapes fit together"):
        PairNetwork.from_arrays(network.arrays() | {"out": network.out[:-1]})

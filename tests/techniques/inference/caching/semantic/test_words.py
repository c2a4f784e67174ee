import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import fit_logistic, probabilities
from halve.techniques.inference.caching.semantic.terms import BITS, Terms, pair_terms
from halve.techniques.inference.caching.semantic.words import WordModel, fit_words, mean_model

ALIKE = (("good", "best"), ("fast", "quick"), ("big", "large"))
APART = (("india", "china"), ("cats", "dogs"), ("red", "green"))


def drawn(n=400, seed=0):
    """Pairs that differ in one word; whether that matters depends on the word."""
    rng = np.random.default_rng(seed)
    ones, others, right = [], [], []
    for _ in range(n):
        same = bool(rng.random() < 0.5)
        one, other = (ALIKE if same else APART)[rng.integers(3)]
        ones.append(f"what is {one} about it")
        others.append(f"what is {other} about it")
        right.append(same if rng.random() < 0.9 else not same)
    return rng.normal(size=(n, 2)), pair_terms(ones, others), np.array(right)


def test_it_learns_which_words_matter():
    features, terms, right = drawn()
    model = fit_words(features, terms, right)
    plain = fit_logistic(features, right)
    others, other_terms, answers = drawn(seed=1)
    assert np.mean((model.logits(others, other_terms) > 0) == answers) > 0.85
    assert np.mean((plain.logits(others) > 0) == answers) < 0.6
    unseen = pair_terms(["what is new about it"], ["what is old about it"])
    assert probabilities(model.logits(np.zeros((1, 2)), unseen))[0] == pytest.approx(0.5, abs=0.15)


def test_without_terms_it_is_a_plain_logistic_regression():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 2)) * [1, 9] + [0, 5]
    right = rng.random(300) < probabilities(features[:, 0] - 0.2)
    none = Terms(places=np.zeros(0, np.int64), starts=np.zeros(301, np.int64))
    found, expected = fit_words(features, none, right, penalty=2.0), fit_logistic(features, right, penalty=2.0)
    assert found.weights == pytest.approx(expected.weights, abs=1e-3)
    assert found.bias == pytest.approx(expected.bias, abs=1e-3)
    assert not found.table.any()


def test_the_mean_of_models_has_the_mean_of_their_log_odds():
    features, terms, right = drawn()
    models = [
        fit_words(features[half], terms.kept(half), right[half])
        for half in (np.arange(400) < 200, np.arange(400) >= 200)
    ]
    expected = np.mean([model.logits(features, terms) for model in models], axis=0)
    assert mean_model(models).logits(features, terms) == pytest.approx(expected, abs=1e-5)


def test_arrays_and_back():
    features, terms, right = drawn(60)
    model = fit_words(features, terms, right)
    again = WordModel.from_arrays(model.arrays(), features=2)
    assert again.logits(features, terms).tobytes() == model.logits(features, terms).tobytes()
    assert model.table.shape == (1 << BITS,)
    with pytest.raises(InvalidParameterError, match="weights and table must be of shapes"):
        WordModel.from_arrays(model.arrays() | {"table": model.table[:5]}, features=2)

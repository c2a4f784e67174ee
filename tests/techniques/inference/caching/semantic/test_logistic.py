import numpy as np
import pytest
from scipy.optimize import minimize

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, fit_logistic, probabilities


def drawn(n=400, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 3)) * [1, 5, 0.1] + [0, 2, -1]
    right = rng.random(n) < probabilities(features @ [1.0, 0.2, -3.0] - 3)
    return features, right


def test_probabilities_do_not_overflow():
    assert probabilities(np.array([-1e9, 0, 1e9])).tolist() == [0, 0.5, 1]
    assert probabilities(np.array([2.0]))[0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_it_finds_the_minimum_that_a_general_optimizer_finds():
    features, right = drawn()
    model = fit_logistic(features, right, penalty=3.0)
    deviation = features.std(axis=0)

    def loss(x):
        logits = features @ x[:3] + x[3]
        return np.sum(np.logaddexp(0, logits) - right * logits) + 1.5 * np.sum((x[:3] * deviation) ** 2)

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    assert loss(np.append(model.weights, model.bias)) == pytest.approx(best.fun, rel=1e-9)
    assert np.append(model.weights, model.bias) == pytest.approx(best.x, rel=1e-3)


def test_mean_probability_is_the_share_of_right_ones():
    features, right = drawn()
    model = fit_logistic(features, right)
    assert probabilities(model.logits(features)).mean() == pytest.approx(right.mean(), abs=1e-6)


def test_a_feature_that_never_varies_has_no_weight_and_perfect_separation_stays_finite():
    features = np.column_stack([np.arange(40.0), np.full(40, 7.3)])
    model = fit_logistic(features, np.arange(40) >= 20)
    assert model.weights[1] == 0
    assert model.weights[0] > 0
    assert np.all(np.isfinite(model.logits(features)))


def test_a_row_does_not_depend_on_the_others():
    features, right = drawn()
    model = fit_logistic(features, right)
    together = model.logits(features)
    assert [model.logits(row[None])[0] for row in features] == together.tolist()
    assert model.logits(features[:0]).shape == (0,)


def test_arrays_and_back():
    model = fit_logistic(*drawn())
    again = LogisticModel.from_arrays(model.arrays(), features=3)
    assert again.weights.tolist() == model.weights.tolist()
    assert again.bias == model.bias
    with pytest.raises(InvalidParameterError, match=r"of shape \(2,\). Got \(3,\)"):
        LogisticModel.from_arrays(model.arrays(), features=2)


def test_bad_input():
    features, right = drawn()
    with pytest.raises(InvalidParameterError, match=r"right must be some true and some false. Got '400 true'"):
        fit_logistic(features, np.ones(400, dtype=bool))
    with pytest.raises(InvalidParameterError, match="penalty must be above 0"):
        fit_logistic(features, right, penalty=0)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.scorer import LogisticScorer, fit_scorer


def drawn(seed, n=80, columns=3):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, columns)) * [1, 10, 0.1][:columns]
    odds = rows[:, 0] + 0.1 * rows[:, 1]
    return rows, (random.random(n) < 1 / (1 + np.exp(-odds))).astype(float)


def test_without_signal_it_says_the_share():
    scorer = fit_scorer(np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0]), features=["constant"])
    assert scorer.weights == (0.0,)
    assert scorer.probability(np.array([[1.0]])) == pytest.approx([0.75], abs=1e-3)


def test_one_feature_by_hand():
    # x = -1 and 1, right where x = 1; with penalty 1 the optimum w solves 2 p(-w) = w, b = 0.
    scorer = fit_scorer(np.array([[-1.0], [1.0]]), np.array([0.0, 1.0]), features=["x"], penalty=1.0)
    (weight,) = scorer.weights
    assert 2 / (1 + np.exp(weight)) == pytest.approx(weight, abs=1e-6)
    assert scorer.bias == pytest.approx(0.0, abs=1e-9)


@given(st.integers(0, 500), st.floats(0.1, 30))
def test_newton_finds_the_minimum_that_a_general_solver_finds(seed, penalty):
    rows, right = drawn(seed)
    scorer = fit_scorer(rows, right, features=["a", "b", "c"], penalty=penalty)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)

    def loss(values):
        odds = standard @ values[:-1] + values[-1]
        ridge = 0.5 * penalty * np.sum(values[:-1] ** 2) + 0.5e-4 * values[-1] ** 2
        return np.sum(np.logaddexp(0, odds) - right * odds) + ridge

    best = minimize(loss, np.zeros(4), method="BFGS")
    assert loss(np.array([*scorer.weights, scorer.bias])) <= best.fun + 1e-6


@given(st.integers(0, 500))
def test_units_of_a_feature_do_not_matter(seed):
    rows, right = drawn(seed)
    plain = fit_scorer(rows, right, features=["a", "b", "c"])
    scaled = fit_scorer(rows * 1000 + 5, right, features=["a", "b", "c"])
    assert np.allclose(plain.probability(rows), scaled.probability(rows * 1000 + 5), atol=1e-6)


def test_targets_may_be_shares_and_all_alike():
    rows = np.array([[0.0], [1.0], [2.0]])
    half = fit_scorer(rows, np.full(3, 0.5), features=["x"])
    assert half.probability(rows) == pytest.approx([0.5] * 3)
    sure = fit_scorer(rows, np.ones(3), features=["x"]).probability(rows)
    assert np.all(sure > 0.99)


def test_json_keeps_every_digit():
    rows, right = drawn(7)
    scorer = fit_scorer(rows, right, features=["a", "b", "c"])
    assert LogisticScorer.from_json(scorer.to_json()) == scorer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"features": ["a"], "means": [0], "scales": [0], "weights": [1], "bias": 0}',
        '{"features": ["a"], "means": [0], "scales": [1, 1], "weights": [1], "bias": 0}',
        '{"features": ["a"], "means": [0], "scales": [1], "weights": [NaN], "bias": 0}',
    ],
)
def test_what_is_no_scorer_is_refused(text):
    with pytest.raises(InvalidParameterError):
        LogisticScorer.from_json(text)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit_scorer(np.zeros((0, 1)), np.zeros(0), features=["a"]),
        lambda: fit_scorer(np.zeros((2, 1)), np.zeros(2), features=["a", "b"]),
        lambda: fit_scorer(np.zeros((2, 1)), np.full(2, 1.5), features=["a"]),
        lambda: fit_scorer(np.full((2, 1), np.nan), np.zeros(2), features=["a"]),
        lambda: fit_scorer(np.zeros((2, 1)), np.zeros(2), features=["a"], penalty=0),
        lambda: fit_scorer(np.zeros((2, 1)), np.zeros(2), features=["a"]).probability(np.zeros((1, 2))),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InvalidParameterError):
        call()

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.signals import TOKEN_RULES, agreement, energy, token_confidence

logits = arrays(np.float64, st.tuples(st.integers(1, 10), st.integers(1, 5)), elements=st.floats(-50, 50))


def test_energy_by_hand():
    found = energy(np.array([[0.0, 0.0], [math.log(3), 0.0]]))
    assert found == pytest.approx([math.log(2), math.log(4)])
    assert energy(np.array([[2.0, 2.0]]), temperature=2.0) == pytest.approx([2 + 2 * math.log(2)])


@given(logits, st.floats(0.1, 10), st.floats(-20, 20))
def test_energy_moves_with_the_logits_and_lies_above_the_largest(rows, temperature, shift):
    found = energy(rows, temperature=temperature)
    assert np.all(found >= rows.max(axis=1) - 1e-9)
    assert np.all(found <= rows.max(axis=1) + temperature * np.log(rows.shape[1]) + 1e-9)
    assert np.allclose(energy(rows + shift, temperature=temperature), found + shift)


def test_token_rules_by_hand():
    answer = [np.log([0.5, 0.5, 0.125])]
    assert token_confidence(answer, "mean") == pytest.approx([0.375])
    assert token_confidence(answer, "minimum") == pytest.approx([0.125])
    assert token_confidence(answer, "perplexity") == pytest.approx([2 ** (-5 / 3)])
    assert token_confidence([], "mean").shape == (0,)


@given(st.lists(st.lists(st.floats(-30, 0), min_size=1, max_size=8), min_size=1, max_size=8))
def test_token_rules_are_in_0_1_and_in_order(answers):
    least, geometric, mean = (token_confidence(answers, rule) for rule in ("minimum", "perplexity", "mean"))
    assert np.all((least >= 0) & (mean <= 1))
    assert np.all(least <= geometric + 1e-12)
    assert np.all(geometric <= mean + 1e-12)


def test_agreement_by_hand():
    first, second, third = np.array(["a", "b", "c"]), np.array(["a", "x", "c"]), np.array(["a", "b", "y"])
    assert agreement([first, second]).tolist() == [1.0, 0.0, 1.0]
    assert agreement([first, second, third]).tolist() == [1.0, 0.5, 0.5]
    assert agreement([np.array([1, 2]), np.array([1, 3])]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: energy(np.zeros(3)),
        lambda: energy(np.array([[np.nan, 0.0]])),
        lambda: energy(np.zeros((1, 2)), temperature=0.0),
        lambda: token_confidence([[-1.0]], "entropy"),
        lambda: token_confidence([[]], TOKEN_RULES[0]),
        lambda: token_confidence([[0.5]], TOKEN_RULES[0]),
        lambda: agreement([np.array(["a"])]),
        lambda: agreement([np.array(["a"]), np.array(["a", "b"])]),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InvalidParameterError):
        call()

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.learn import as_text, explain


def figures_of(derivation) -> dict[str, float]:
    return {name: figure for step in derivation.steps for name, figure in step.figures.items()}


def test_the_golden_example():
    # e^4, e^2, e^1 = 54.598, 7.389, 2.718 over 64.705; at T = 5 e^0.8, e^0.4, e^0.2 over 4.938769.
    figures = figures_of(explain("distillation", first=4, second=2, third=1, temperature=5, alpha=0.9))
    plain = [figures[f"probability_{place}"] for place in (1, 2, 3)]
    soft = [figures[f"softened_{place}"] for place in (1, 2, 3)]
    assert plain == pytest.approx([0.843795, 0.114195, 0.042010], abs=1e-6)
    assert soft == pytest.approx([0.450627, 0.302064, 0.247309], abs=1e-6)
    # The student's logits are (1, 1, 0): at T = 5 e^0.2, e^0.2, 1 over 3.442806: (0.354769, 0.354769, 0.290461).
    # KL = 0.450627 ln(0.450627 / 0.354769) + 0.302064 ln(0.302064 / 0.354769) + 0.247309 ln(0.247309 / 0.290461)
    #    = 0.107776 - 0.048577 - 0.039776 = 0.019424
    assert figures["divergence"] == pytest.approx(0.019424, abs=2e-5)
    # CE at T = 1: ln(2 e + 1) - 1 = 0.861995; L = 0.9 * 25 * 0.019424 + 0.1 * 0.861995 = 0.52324
    assert figures["hard"] == pytest.approx(0.861995, abs=1e-6)
    assert figures["loss"] == pytest.approx(0.5232, abs=5e-4)


def test_the_gradient_times_t_squared_stays_of_one_order():
    figures = figures_of(explain("distillation"))
    lengths = [figures[f"gradient_at_{temperature}"] for temperature in (1, 2, 5, 10, 20)]
    assert max(lengths) / min(lengths) < 4
    shrunk = [length / temperature**2 for length, temperature in zip(lengths, (1, 2, 5, 10, 20), strict=True)]
    assert shrunk[0] / shrunk[-1] > 50


def test_a_match_is_0_and_cross_entropy_is_the_entropy_more():
    figures = figures_of(explain("distillation"))
    assert figures["divergence_of_a_match"] == 0
    assert figures["cross_entropy"] == pytest.approx(figures["entropy"] + figures["divergence"])
    assert figures["bucketed_divergence"] <= figures["divergence"] + 1e-12


@given(
    logits=st.tuples(*[st.floats(-50, 50)] * 3),
    temperature=st.floats(0.5, 100),
    alpha=st.floats(0, 1),
)
def test_any_numbers_fit_the_page(logits, temperature, alpha):
    first, second, third = logits
    derivation = explain("distillation", first=first, second=second, third=third, temperature=temperature, alpha=alpha)
    assert max(len(line) for line in as_text(derivation).splitlines()) <= 80
    figures = figures_of(derivation)
    assert all(math.isfinite(figure) for figure in figures.values())
    assert figures["divergence"] >= -1e-9
    entropies = [figures[f"entropy_at_{temperature}"] for temperature in (1, 2, 5, 10, 20)]
    assert all(high >= low - 1e-9 for low, high in pairwise(entropies))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"first": 51}, r"first must be within \+-50\. Got 51"),
        ({"third": math.nan}, r"third must be within \+-50\. Got nan"),
        ({"temperature": 0}, r"temperature must be in \[0\.5, 100\]\. Got 0"),
        ({"alpha": 2}, r"alpha must be in \[0, 1\]\. Got 2"),
    ],
)
def test_a_bad_number_is_one_sentence(numbers, message):
    with pytest.raises(InvalidParameterError, match=message):
        explain("distillation", **numbers)

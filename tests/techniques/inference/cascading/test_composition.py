import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading import compose


@st.composite
def chains(draw):
    stages, n = draw(st.integers(1, 4)), draw(st.integers(0, 20))
    scores = [draw(arrays(np.float64, n, elements=st.floats(0, 1))) for _ in range(stages)]
    accepts = [draw(arrays(np.bool_, n)) for _ in range(stages - 1)]
    return scores, accepts


@given(chains())
def test_each_example_is_answered_by_the_first_stage_that_accepts(chain):
    scores, accepts = chain
    found = compose(scores, accepts)
    for example, (stage, score) in enumerate(zip(found.stage, found.scores, strict=True)):
        assert not any(mask[example] for mask in accepts[:stage])
        assert stage == len(accepts) or accepts[stage][example]
        assert score == scores[stage][example]


@given(chains(), st.data())
def test_cost_lies_between_the_cheapest_and_the_sum_of_all(chain, data):
    scores, accepts = chain
    size = len(scores)
    prices = sorted(data.draw(st.lists(st.floats(0, 100), min_size=size, max_size=size)))
    costs = compose(scores, accepts).costs(prices)
    assert np.all((costs >= prices[0]) & (costs <= sum(prices) + 1e-9))


def test_three_stages_by_hand():
    found = compose(
        [np.array([1.0, 0.0, 0.0]), np.array([0.1, 0.2, 0.3]), np.array([0.7, 0.8, 0.9])],
        [np.array([True, False, False]), np.array([True, True, False])],
    )
    assert found.stage.tolist() == [0, 1, 2]
    assert found.scores.tolist() == [1.0, 0.2, 0.9]
    assert found.costs([1, 10, 100]).tolist() == [1, 11, 111]


@pytest.mark.parametrize(
    ("scores", "accepts", "match"),
    [
        ([], [], "one fewer than the 0 stages, which are at least 1. Got 0"),
        ([np.ones(2)], [np.ones(2, dtype=bool)], "one fewer than the 1 stages, which are at least 1. Got 1"),
        ([np.ones(2), np.ones(3)], [np.ones(2, dtype=bool)], r"equally long. Got \[2, 3\]"),
    ],
)
def test_chains_that_do_not_fit_are_refused(scores, accepts, match):
    with pytest.raises(InvalidParameterError, match=match):
        compose(scores, accepts)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading import NEVER, RULES, accepted, confidence

rules = st.sampled_from(RULES)


@st.composite
def distributions(draw, most_rows=30):
    shape = (draw(st.integers(0, most_rows)), draw(st.integers(1, 6)))
    weights = draw(arrays(np.float64, shape, elements=st.floats(0, 1))) + 1e-6
    return (weights / weights.sum(axis=1, keepdims=True)).astype(draw(st.sampled_from([np.float32, np.float64])))


@pytest.mark.parametrize(
    ("rule", "row", "expected"),
    [
        ("maximum_probability", [0.2, 0.5, 0.3], 0.5),
        ("margin", [0.2, 0.5, 0.3], 0.2),
        ("entropy", [0.25, 0.25, 0.25, 0.25], 0.0),
        ("entropy", [0.5, 0.5, 0.0, 0.0], 0.5),  # H = log 2 of log 4
        ("entropy", [1.0, 0.0], 1.0),
        ("margin", [0.5, 0.5], 0.0),
        ("margin", [1.0], 1.0),
        ("entropy", [1.0], 1.0),
        ("maximum_probability", [1.0], 1.0),
    ],
)
def test_confidence_of_known_distributions(rule, row, expected):
    assert confidence(np.array([row]), rule)[0] == pytest.approx(expected, abs=1e-12)


@given(distributions(), rules)
def test_confidence_is_in_0_1_and_blind_to_the_order_of_classes(probabilities, rule):
    sure = confidence(probabilities, rule)
    assert sure.shape == (len(probabilities),)
    assert np.all((sure >= 0) & (sure <= 1))
    assert np.allclose(sure, confidence(probabilities[:, ::-1], rule), atol=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), rules)
def test_two_classes_are_ordered_alike_by_every_rule(shares, rule):
    probabilities = np.array([[share, 1 - share] for share in shares])
    by_rule = confidence(probabilities, rule)[np.argsort(probabilities.max(axis=1), kind="stable")]
    assert np.all(np.diff(by_rule) >= -1e-9)


@given(distributions(), rules, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_accepts_a_subset(probabilities, rule, one, other):
    low, high = (accepted(probabilities, rule=rule, threshold=level) for level in sorted((one, other)))
    assert not np.any(high & ~low)


@given(distributions(), rules)
def test_threshold_0_accepts_all_and_never_accepts_none(probabilities, rule):
    assert np.all(accepted(probabilities, rule=rule, threshold=0.0))
    assert not np.any(accepted(probabilities, rule=rule, threshold=NEVER))


def test_the_threshold_itself_is_accepted():
    assert accepted(np.array([[0.75, 0.25]]), rule="maximum_probability", threshold=0.75)[0]


@pytest.mark.parametrize(
    ("probabilities", "rule", "match"),
    [
        ([[0.5, 0.5]], "variance", "rule must be one of maximum_probability, margin, entropy. Got 'variance'"),
        ([0.5, 0.5], "margin", r"of shape \(n, classes\), classes >= 1. Got \(2,\)"),
        ([[]], "margin", r"Got \(1, 0\)"),
        ([[3.0, -1.0]], "margin", r"rows that sum to 1. Got 'rows that are not \(logits or NaN\?\)'"),
        ([[0.4, 0.4]], "margin", "rows that sum to 1"),
        ([[np.nan, 0.4]], "margin", "rows that sum to 1"),
    ],
)
def test_what_is_not_a_distribution_is_refused(probabilities, rule, match):
    with pytest.raises(InvalidParameterError, match=match):
        confidence(np.array(probabilities), rule)


def test_a_threshold_that_is_not_a_number_is_refused():
    with pytest.raises(InvalidParameterError, match=r"threshold must be a number\. Got nan"):
        accepted(np.array([[1.0]]), rule="margin", threshold=float("nan"))

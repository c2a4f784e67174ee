import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halve.errors import InvalidParameterError
from halve.gate import compare, drop_lower_bound, drop_p_value, drop_upper_bound
from halve.gate.betting import betting_upper_bound
from halve.gate.exact import exact_upper_bound


@st.composite
def pairs(draw, is_binary=True):
    n = draw(st.integers(1, 60))
    elements = st.sampled_from([0.0, 1.0]) if is_binary else st.floats(0, 1)
    return draw(arrays(np.float64, n, elements=elements)), draw(arrays(np.float64, n, elements=elements))


@given(st.booleans().flatmap(lambda binary: st.tuples(st.just(binary), pairs(binary))))
def test_identical_scores_have_no_drop_and_are_never_better(given_pairs):
    is_binary, (scores, _) = given_pairs
    found = compare(scores, scores, margin=0.0, confidence=0.95, is_binary=is_binary)
    assert (found.drop, found.discordance, found.p_value) == (0.0, 0.0, 1.0)
    assert found.upper_bound > 0
    assert drop_lower_bound(scores, scores, confidence=0.95, is_binary=is_binary) < 0


@given(st.booleans().flatmap(lambda binary: st.tuples(st.just(binary), pairs(binary))))
def test_swapping_flips_the_sign(given_pairs):
    is_binary, (one, other) = given_pairs
    there, back = (
        compare(*order, margin=0.1, confidence=0.9, is_binary=is_binary) for order in ((one, other), (other, one))
    )
    assert there.drop == -back.drop
    assert there.drop == pytest.approx(there.baseline - there.candidate, abs=1e-12)
    assert -back.upper_bound == drop_lower_bound(one, other, confidence=0.9, is_binary=is_binary)
    assert -back.upper_bound <= there.drop <= there.upper_bound


@given(pairs(), st.randoms(use_true_random=False))
def test_order_of_binary_pairs_does_not_matter(scores, random):
    one, other = scores
    order = list(range(len(one)))
    random.shuffle(order)
    settings = {"margin": 0.05, "confidence": 0.95}
    assert compare(one, other, **settings) == compare(one[order], other[order], **settings)


def test_counts_reach_the_exact_bound():
    baseline = np.array([1, 1, 1, 0, 0, 1.0] * 10)
    candidate = np.array([0, 1, 1, 1, 0, 0.0] * 10)
    expected = exact_upper_bound(60, losses=20, gains=10, confidence=0.9)
    assert drop_upper_bound(baseline, candidate, confidence=0.9) == expected
    found = compare(baseline, candidate, margin=0.3, confidence=0.9)
    assert found.discordance == 0.5
    assert found.p_value == drop_p_value(baseline, candidate, margin=0.3)
    assert "Berger & Boos" in found.method


def test_other_scores_reach_the_betting_bound():
    rng = np.random.default_rng(0)
    baseline, candidate = rng.random(50), rng.random(50)
    bound = drop_upper_bound(baseline, candidate, confidence=0.9, is_binary=False)
    assert bound == betting_upper_bound(baseline - candidate, confidence=0.9)
    assert "Waudby-Smith" in compare(baseline, candidate, margin=0.1, confidence=0.9, is_binary=False).method


@pytest.mark.parametrize(
    ("baseline", "candidate", "is_binary", "match"),
    [
        ([], [], True, r"n >= 1. Got \(\(0,\), \(0,\)\)"),
        ([1.0], [1.0, 0.0], True, r"equal length, n >= 1. Got \(\(1,\), \(2,\)\)"),
        ([[1.0]], [[1.0]], True, r"Got \(\(1, 1\), \(1, 1\)\)"),
        ([1.0, 0.0], [1.0, 0.5], True, r"0 or 1 for the exact bound. Got 0.5"),
        ([1.0, 0.0], [1.0, np.nan], True, r"Got nan"),
        ([1.0, 0.0], [1.0, np.nan], False, r"in \[0, 1\]. Got nan"),
        ([1.0, 0.0], [1.0, 1.5], False, r"in \[0, 1\]. Got 1.5"),
    ],
)
def test_scores_that_cannot_be_compared_are_named(baseline, candidate, is_binary, match):
    with pytest.raises(InvalidParameterError, match=match):
        drop_upper_bound(np.array(baseline), np.array(candidate), confidence=0.95, is_binary=is_binary)

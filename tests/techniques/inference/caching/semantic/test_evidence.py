import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.differences import differences
from halve.techniques.inference.caching.semantic.evidence import (
    LOOKUP_NAMES,
    PAIR_NAMES,
    Lookup,
    answer_logits,
    lookup_evidence,
    pair_evidence,
)
from halve.techniques.inference.caching.semantic.neighbour import Neighbour


def either(*logits):
    """Log-odds that one of several independent events happens."""
    missed = np.prod([1 / (1 + np.exp(logit)) for logit in logits])
    return np.log((1 - missed) / missed)


def near(cosine, answer, entry=0):
    return Neighbour(entry=entry, text="t", answer=answer, cosine=cosine)


def test_a_pair_by_hand():
    row = pair_evidence(["turn it on"], ["turn off"], cosines=[0.9])[0]
    assert row[:3] == pytest.approx([0.9, np.log(3), np.log(4)])
    assert row[3:].tolist() == differences("turn it on", "turn off").tolist()
    assert row.shape == (len(PAIR_NAMES),)
    assert pair_evidence([], [], cosines=[]).shape == (0, len(PAIR_NAMES))
    with pytest.raises(InvalidParameterError, match=r"cosines must be as many as pairs, 1. Got 0"):
        pair_evidence(["a"], ["b"], cosines=[])


def test_a_look_up_by_hand():
    neighbours = [near(0.9, "a"), near(0.85, "b"), near(0.8, "a"), near(0.7, "c")]
    found = dict(zip(LOOKUP_NAMES, lookup_evidence(neighbours, logits=[1.0, 3.0, -20.0], candidate=1), strict=True))
    votes = np.exp(np.array([0.0, -1.0, -2.0, -4.0]))
    assert found == pytest.approx(
        {
            "logit": 3.0,
            "logit_over_others": 2.0,
            "answer_logit": 3.0,
            "answer_logit_over_others": 3.0 - either(1.0, -8.0),
            "cosine": 0.85,
            "cosine_behind_nearest": 0.05,
            "margin": -0.05,
            "agreement": votes[1] / votes.sum(),
            "same_answers": 0.0,
            "other_answers": np.log(3),
            "density": 0.85 - 0.8,
        }
    )


def test_a_neighbour_alone_is_its_own_proof():
    found = dict(zip(LOOKUP_NAMES, lookup_evidence([near(0.9, "a")], logits=[30.0], candidate=0), strict=True))
    assert found["agreement"] == 1
    assert found["margin"] == found["density"] == 0.9
    assert (found["logit"], found["logit_over_others"]) == (8, 16)
    assert (found["answer_logit"], found["answer_logit_over_others"]) == pytest.approx((8, 16))
    assert found["other_answers"] == 0


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc")), min_size=1, max_size=6),
    st.data(),
)
def test_evidence_is_finite_and_agreement_is_a_share(rows, data):
    neighbours = [near(cosine, answer) for cosine, answer in sorted(rows, reverse=True)]
    candidate = data.draw(st.integers(0, len(rows) - 1))
    logits = data.draw(st.lists(st.floats(-50, 50), min_size=candidate + 1, max_size=len(rows)))
    found = lookup_evidence(neighbours, logits=logits, candidate=candidate)
    assert np.all(np.isfinite(found))
    assert 0 < found[LOOKUP_NAMES.index("agreement")] <= 1
    assert found[LOOKUP_NAMES.index("cosine_behind_nearest")] >= 0


def test_vectors_must_fit():
    vector, vectors = np.zeros(3, np.float32), np.zeros((1, 3), np.float32)
    assert Lookup(text="q", neighbours=(near(1, "a"),), vector=vector, vectors=vectors).text == "q"
    with pytest.raises(InvalidParameterError, match="both given or neither"):
        Lookup(text="q", neighbours=(near(1, "a"),), vector=vector)
    assert Lookup(text="q", neighbours=(near(1, "a"),) * 2, vector=vector, vectors=vectors).text == "q"
    with pytest.raises(InvalidParameterError, match=r"vectors must be of shape \(at most 1, 3\). Got \(2, 3\)"):
        Lookup(text="q", neighbours=(near(1, "a"),), vector=vector, vectors=np.zeros((2, 3), np.float32))
    with pytest.raises(InvalidParameterError, match=r"vectors must be of shape \(at most 1, 3\). Got \(1, 2\)"):
        Lookup(text="q", neighbours=(near(1, "a"),), vector=vector, vectors=np.zeros((1, 2), np.float32))


def test_pairs_with_one_answer_support_each_other():
    found = answer_logits(["a", "b", "a"], [0.0, 1.0, 0.0])
    assert found == pytest.approx({"a": np.log(3), "b": 1.0})
    assert answer_logits([], []) == {}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(-1e9, 1e9)), max_size=5))
def test_support_only_adds_and_stays_within_limits(rows):
    found = answer_logits([answer for answer, _ in rows], [logit for _, logit in rows])
    for answer, logit in rows:
        assert found[answer] >= max(min(logit, 8), -8) - 1e-9
        assert found[answer] <= 8

import json

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, probabilities
from halve.techniques.inference.caching.semantic.network import NetworkRecipe, fit_network
from halve.techniques.inference.caching.semantic.scorer import Member, Scorer
from halve.techniques.inference.caching.semantic.trees import fit_trees

NAMES = ("cosine", "length")


def line(*weights, bias=0.0):
    return LogisticModel(weights=np.array(weights, dtype=np.float64), bias=bias)


@pytest.fixture(scope="module")
def whole():
    """One with a member of every kind, and evidence for it."""
    rng = np.random.default_rng(0)
    features, right = rng.normal(size=(300, 2)), rng.random(300) < 0.5
    ones, others = (rng.normal(size=(300, 3)).astype(np.float32) for _ in range(2))
    network = fit_network(features, ones, others, right, recipe=NetworkRecipe(width=4, epochs=1))
    members = tuple(Member(models=(model,)) for model in (line(1, 2), fit_trees(features, right, trees=3), network))
    scorer = Scorer(names=NAMES, members=members, combination=line(0.5, 0.3, 0.2, bias=-0.1), dimension=3)
    return scorer, features, ones, others


def test_members_are_averaged_and_combined_by_hand():
    pair = Member(models=(line(1, 0), line(3, 0)))
    scorer = Scorer(names=NAMES, members=(pair, Member(models=(line(0, 1),))), combination=line(2, 1, bias=1))
    features = np.array([[1.0, 5.0], [0.0, 0.0]])
    assert scorer.logits(features).tolist() == [2 * 2 + 5 + 1, 1]
    assert scorer.probabilities(features) == pytest.approx(probabilities(np.array([10.0, 1.0])))


def test_a_document_gives_it_back_bit_for_bit(whole):
    scorer, features, ones, others = whole
    document = json.loads(json.dumps(scorer.to_document()))
    again = Scorer.from_document(document, names=NAMES)
    assert again.logits(features, ones, others).tobytes() == scorer.logits(features, ones, others).tobytes()
    assert again.to_document() == document


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": "halve.scorer/2"}, r"schema must be 'halve.scorer/1'. Got 'halve.scorer/2'"),
        ({"names": ["cosine"]}, "The scorer was fitted with other evidence"),
        ({"members": []}, "weights must be of shape"),
        ({"members": [{"kind": "logistic", "models": []}] * 3}, "members must be at least one, none empty"),
        ({"members": [{"kind": "oracle", "models": [{}]}]}, "kind must be one of logistic, trees, network"),
        ({"members": [{"kind": "trees", "models": [{}]}]}, "a whole scorer document"),
        ({"members": None}, "a whole scorer document"),
        ({"dimension": "x"}, "a whole scorer document"),
    ],
)
def test_other_and_damaged_documents_are_refused(whole, change, match):
    with pytest.raises(InvalidParameterError, match=match):
        Scorer.from_document(whole[0].to_document() | change, names=NAMES)


def test_wrong_shapes_are_refused(whole):
    scorer, features, ones, others = whole
    with pytest.raises(InvalidParameterError, match=r"features must be of shape \(n, 2\). Got \(300, 1\)"):
        scorer.logits(features[:, :1], ones, others)
    with pytest.raises(InvalidParameterError, match=r"vectors must be of shape \(300, 3\). Got None"):
        scorer.logits(features)
    with pytest.raises(InvalidParameterError, match=r"vectors must be of shape \(300, 3\). Got \(299, 3\)"):
        scorer.logits(features, ones[1:], others)

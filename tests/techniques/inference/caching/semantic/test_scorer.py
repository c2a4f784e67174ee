import json

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, probabilities
from halve.techniques.inference.caching.semantic.network import NetworkRecipe, fit_network
from halve.techniques.inference.caching.semantic.scorer import Member, Scorer
from halve.techniques.inference.caching.semantic.terms import pair_terms
from halve.techniques.inference.caching.semantic.trees import fit_trees
from halve.techniques.inference.caching.semantic.words import fit_words

NAMES = ("cosine", "length")


def line(*weights, bias=0.0):
    return LogisticModel(weights=np.array(weights, dtype=np.float64), bias=bias)


@pytest.fixture(scope="module")
def whole():
    """One with a member of every kind, and evidence for it."""
    rng = np.random.default_rng(0)
    features, right = rng.normal(size=(300, 2)), rng.random(300) < 0.5
    ones, others = (rng.normal(size=(300, 3)).astype(np.float32) for _ in range(2))
    texts = [f"word{number % 7} and more" for number in range(300)]
    examples = Examples(features=features, ones=ones, others=others, terms=pair_terms(texts, texts[::-1]))
    models = (
        line(1, 2),
        fit_trees(features, right, trees=3),
        fit_network(features, ones, others, right, recipe=NetworkRecipe(width=4, epochs=1)),
        fit_words(features, examples.terms, right),
    )
    members = tuple(Member(models=(model,)) for model in models)
    scorer = Scorer(names=NAMES, members=members, combination=line(0.5, 0.3, 0.2, 0.1, bias=-0.1), dimension=3)
    return scorer, examples


def test_members_are_averaged_and_combined_by_hand():
    pair = Member(models=(line(1, 0), line(3, 0)))
    scorer = Scorer(names=NAMES, members=(pair, Member(models=(line(0, 1),))), combination=line(2, 1, bias=1))
    features = Examples(features=np.array([[1.0, 5.0], [0.0, 0.0]]))
    assert not scorer.needs_terms
    assert scorer.logits(features).tolist() == [2 * 2 + 5 + 1, 1]
    assert scorer.probabilities(features) == pytest.approx(probabilities(np.array([10.0, 1.0])))


def test_a_document_gives_it_back_bit_for_bit(whole):
    scorer, examples = whole
    document = json.loads(json.dumps(scorer.to_document()))
    again = Scorer.from_document(document, names=NAMES)
    assert again.logits(examples).tobytes() == scorer.logits(examples).tobytes()
    assert again.to_document() == document


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": "halve.scorer/9"}, r"schema must be 'halve.scorer/2'. Got 'halve.scorer/9'"),
        ({"names": ["cosine"]}, "The scorer was fitted with other evidence"),
        ({"members": []}, "weights must be of shape"),
        ({"members": [{"kind": "logistic", "models": []}] * 4}, "members must be at least one, none empty"),
        ({"members": [{"kind": "oracle", "models": [{}]}]}, "kind must be one of logistic, words, trees, network"),
        ({"members": [{"kind": "trees", "models": [{}]}]}, "a whole scorer document"),
        ({"members": None}, "a whole scorer document"),
        ({"dimension": "x"}, "a whole scorer document"),
    ],
)
def test_other_and_damaged_documents_are_refused(whole, change, match):
    with pytest.raises(InvalidParameterError, match=match):
        Scorer.from_document(whole[0].to_document() | change, names=NAMES)


def test_wrong_shapes_are_refused(whole):
    scorer, examples = whole
    features, ones = examples.features, examples.ones
    assert scorer.needs_terms
    with pytest.raises(InvalidParameterError, match=r"features must be of shape \(n, 2\). Got \(300, 1\)"):
        scorer.logits(Examples(features=features[:, :1]))
    with pytest.raises(InvalidParameterError, match=r"vectors must be of 3 numbers, .* Got None"):
        scorer.logits(Examples(features=features, terms=examples.terms))
    with pytest.raises(InvalidParameterError, match=r"vectors must be of 3 numbers, .* Got 2"):
        scorer.logits(Examples(features=features, ones=ones[:, :2], others=ones[:, :2], terms=examples.terms))
    with pytest.raises(InvalidParameterError, match="terms must be given"):
        scorer.logits(Examples(features=features, ones=ones, others=ones))

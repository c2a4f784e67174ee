import json
from dataclasses import replace

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.assessment import NAMES, Assessor
from halve.techniques.inference.caching.semantic.evidence import PAIR_NAMES, Lookup
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, probabilities
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.network import PairNetwork
from halve.techniques.inference.caching.semantic.rarity import Rarity
from halve.techniques.inference.caching.semantic.scorer import Member, Scorer

QUESTION = "how do I turn off dark mode"
NEIGHBOURS = (
    Neighbour(entry=1, text="how do I turn on dark mode", answer="a", cosine=0.95),
    Neighbour(entry=2, text="switch dark mode off", answer="b", cosine=0.9),
    Neighbour(entry=3, text="what is dark mode", answer="c", cosine=0.8),
)


def linear(names, **weights):
    """A scorer whose log-odds are a weighted sum of named columns."""
    member = LogisticModel(weights=np.array([weights.get(name, 0.0) for name in names]), bias=weights.get("bias", 0.0))
    return Scorer(
        names=names,
        members=(Member(models=(member,)),),
        combination=LogisticModel(weights=np.ones(1), bias=0.0),
    )


def of_vectors(dimension):
    """A scorer that needs vectors: its log-odds are the sum of u * v."""
    inputs = 2 * dimension + len(PAIR_NAMES)
    hidden = np.zeros((inputs, 1), np.float32)
    hidden[dimension : 2 * dimension] = 1
    network = PairNetwork(
        mean=np.zeros(inputs, np.float32),
        scale=np.ones(inputs, np.float32),
        hidden=hidden,
        hidden_bias=np.zeros(1, np.float32),
        out=np.ones(1, np.float32),
        out_bias=np.zeros(1, np.float32),
    )
    return Scorer(
        names=PAIR_NAMES,
        members=(Member(models=(network,)),),
        combination=LogisticModel(weights=np.ones(1), bias=0.0),
        dimension=dimension,
    )


def test_without_a_scorer_the_nearest_allowed_neighbour_and_its_cosine():
    assessor = Assessor()
    found = assessor.assess([Lookup(text=QUESTION, neighbours=NEIGHBOURS)])[0]
    assert (found.candidate, found.probability) == (1, 0.9)  # the nearest is forbidden: on against off
    assert found.veto == "a word stands against its contrary"
    assert not assessor.has_scorer


def test_all_forbidden_or_nothing_near():
    forbidden, nothing = Assessor().assess(
        [Lookup(text=QUESTION, neighbours=NEIGHBOURS[:1]), Lookup(text=QUESTION, neighbours=())]
    )
    assert (forbidden.candidate, forbidden.probability, forbidden.veto) == (
        None,
        0,
        "a word stands against its contrary",
    )
    assert (nothing.candidate, nothing.probability, nothing.veto) == (None, 0, "")
    free = Assessor(vetoes=()).assess([Lookup(text=QUESTION, neighbours=NEIGHBOURS)])[0]
    assert (free.candidate, free.probability, free.veto) == (0, 0.95, "")


def test_the_scorer_chooses_the_neighbour_not_the_cosine():
    assessor = Assessor(vetoes=(), pair_scorer=linear(PAIR_NAMES, polarity=-5, content=-2, bias=1))
    found = assessor.assess([Lookup(text=QUESTION, neighbours=NEIGHBOURS)])[0]
    evidence = dict(
        zip(PAIR_NAMES, assessor.rows([Lookup(text=QUESTION, neighbours=NEIGHBOURS)]).examples.features[1], strict=True)
    )
    assert found.candidate == 1
    assert found.probability == pytest.approx(probabilities(np.array(1 - 2 * evidence["content"])))


def test_an_answer_that_several_neighbours_have_goes_before_a_lone_one():
    stored = tuple(
        Neighbour(entry=place, text=text, answer=answer, cosine=0.9)
        for place, (text, answer) in enumerate((("red", "a"), ("green one", "b"), ("green two", "b")))
    )
    assessor = Assessor(vetoes=(), pair_scorer=linear(PAIR_NAMES, count=-0.8))
    found = assessor.assess([Lookup(text="blue", neighbours=stored)])[0]
    assert found.candidate == 1
    assert assessor.assess([Lookup(text="blue", neighbours=stored[:2])])[0].candidate == 0


def test_only_so_many_neighbours_are_scored():
    assessor = Assessor(vetoes=(), pair_scorer=linear(PAIR_NAMES, cosine=-1), candidates=2)
    assert assessor.assess([Lookup(text=QUESTION, neighbours=NEIGHBOURS)])[0].candidate == 1


def test_the_scorer_of_look_ups_sees_the_neighbours_around():
    assessor = Assessor(
        vetoes=(), pair_scorer=linear(PAIR_NAMES, cosine=1), lookup_scorer=linear(NAMES, agreement=10, bias=-5)
    )
    alone, contested = assessor.assess(
        [Lookup(text=QUESTION, neighbours=NEIGHBOURS[:1]), Lookup(text=QUESTION, neighbours=NEIGHBOURS)]
    )
    assert alone.probability == pytest.approx(probabilities(np.array(5.0)))
    assert contested.probability < alone.probability


def test_the_same_words_are_the_same_question():
    stored = (*NEIGHBOURS[:1], Neighbour(entry=9, text=f" {QUESTION.upper()} ", answer="z", cosine=0.9))
    found = Assessor(pair_scorer=linear(PAIR_NAMES, bias=-9)).assess([Lookup(text=QUESTION, neighbours=stored)])[0]
    assert (found.candidate, found.probability, found.same_words) == (1, 1.0, True)


def test_long_texts_with_one_beginning_are_not_the_same():
    beginning = "word " * 600
    stored = (Neighbour(entry=1, text=beginning + "yes", answer="a", cosine=0.999),)
    other, same = Assessor().assess(
        [Lookup(text=beginning + "no", neighbours=stored), Lookup(text=beginning + " YES", neighbours=stored)]
    )
    assert (other.candidate, other.veto) == (None, "a text is too long to be compared")
    assert (same.candidate, same.probability) == (0, 1.0)


def test_one_look_up_does_not_change_another():
    lookups = [
        Lookup(text=QUESTION, neighbours=NEIGHBOURS),
        Lookup(text="", neighbours=()),
        Lookup(text="what is dark mode good for", neighbours=NEIGHBOURS[1:]),
    ]
    assessor = Assessor(
        pair_scorer=linear(PAIR_NAMES, cosine=3, content=-1), lookup_scorer=linear(NAMES, logit=1, margin=2)
    )
    assert assessor.assess(lookups) == [assessor.assess([lookup])[0] for lookup in lookups]
    assert assessor.assess([]) == []


def test_vectors_reach_the_network_in_the_neighbours_order():
    vector, vectors = np.array([1, 0], np.float32), np.array([[0, 1], [2, 0], [1, 1]], np.float32)
    assessor = Assessor(vetoes=(), pair_scorer=of_vectors(2))
    empty = Lookup(text="nothing", neighbours=())
    whole = Lookup(text=QUESTION, neighbours=NEIGHBOURS, vector=vector, vectors=vectors)
    found = assessor.assess([empty, whole])[1]
    assert found.candidate == 1
    assert found.probability == pytest.approx(probabilities(np.array(2.0)))
    for fewer in (Lookup(text=QUESTION, neighbours=NEIGHBOURS), replace(whole, vectors=vectors[:2])):
        with pytest.raises(InvalidParameterError, match=r"vectors must be of 2 numbers, .* Got None"):
            assessor.assess([fewer])


def test_only_vectors_that_are_read_are_needed():
    vector, vectors = np.array([1, 0], np.float32), np.array([[0, 1], [2, 0], [1, 1]], np.float32)
    whole = Lookup(text=QUESTION, neighbours=NEIGHBOURS, vector=vector, vectors=vectors)
    assessor = Assessor(vetoes=(), pair_scorer=of_vectors(2), candidates=2)
    assert assessor.vectors_needed(NEIGHBOURS) == 2
    assert assessor.assess([replace(whole, vectors=vectors[:2])]) == assessor.assess([whole])
    far = replace(assessor, least_cosine=1.0)
    assert far.vectors_needed(NEIGHBOURS) == 0
    assert far.assess([replace(whole, vectors=vectors[:0])])[0].candidate is None
    assert (Assessor().vectors_needed(NEIGHBOURS), assessor.vectors_needed(())) == (0, 0)


def test_a_document_gives_the_same_assessments():
    assessor = Assessor(
        vetoes=("numbers",),
        pair_scorer=linear(PAIR_NAMES, cosine=1, rare_words=-1),
        lookup_scorer=linear(NAMES, margin=2),
        rarity=Rarity.of_texts([QUESTION]),
        candidates=3,
    )
    again = Assessor.from_document(json.loads(json.dumps(assessor.to_document())))
    lookups = [Lookup(text=QUESTION, neighbours=NEIGHBOURS)]
    assert again.assess(lookups) == assessor.assess(lookups)
    assert again.to_document() == assessor.to_document()


def test_bad_input():
    with pytest.raises(InvalidParameterError, match="vetoes must be some of"):
        Assessor(vetoes=("colour",))
    with pytest.raises(InvalidParameterError, match="candidates must be at least 1"):
        Assessor(candidates=0)
    with pytest.raises(InvalidParameterError, match="lookup_scorer must be given with a pair scorer"):
        Assessor(lookup_scorer=linear(NAMES))


def test_a_look_up_that_is_too_far_from_everything_is_a_miss_without_evidence():
    near, far = Lookup(text=QUESTION, neighbours=NEIGHBOURS), Lookup(text=QUESTION, neighbours=NEIGHBOURS[2:])
    assessor = Assessor(least_cosine=0.85)
    assert len(assessor.rows([near, far]).examples) == 3
    found = assessor.assess([near, far])
    assert found[0] == Assessor().assess([near])[0]
    assert (found[1].candidate, found[1].probability) == (None, 0.0)
    again = Assessor.from_document(json.loads(json.dumps(assessor.to_document())))
    assert again.least_cosine == 0.85


def test_the_least_cosine_is_a_cosine():
    with pytest.raises(InvalidParameterError, match=r"least_cosine must be in \[-1, 1\]. Got 1.5"):
        Assessor(least_cosine=1.5)

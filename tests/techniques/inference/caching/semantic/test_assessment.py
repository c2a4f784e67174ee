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
from halve.techniques.inference.caching.semantic.reach import Reach
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
    inputs = 3 * dimension + len(PAIR_NAMES)
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
    far = replace(assessor, reach=Reach(levels=(0.0, 0.5), cosines=(0.0, 1.0)))
    assert (far.vectors_needed(NEIGHBOURS, at_least=0.5), far.vectors_needed(NEIGHBOURS, at_least=0.4)) == (0, 2)
    assert far.assess([replace(whole, vectors=vectors[:0])], at_least=0.5)[0].candidate is None
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
    with pytest.raises(InvalidParameterError, match=r"most_behind must be in \[0, 2\]"):
        Assessor(most_behind=2.5)
    with pytest.raises(InvalidParameterError, match="lookup_scorer must be given with a pair scorer"):
        Assessor(lookup_scorer=linear(NAMES))


def test_a_look_up_that_is_too_far_from_everything_is_a_miss_without_evidence():
    near, far = Lookup(text=QUESTION, neighbours=NEIGHBOURS), Lookup(text=QUESTION, neighbours=NEIGHBOURS[2:])
    assessor = Assessor(reach=Reach(levels=(0.0, 0.5), cosines=(-1.0, 0.85)))
    assert len(assessor.rows([near, far], at_least=0.5).examples) == 3
    assert len(assessor.rows([near, far]).examples) == 4
    found = assessor.assess([near, far], at_least=0.5)
    assert found[0] == Assessor().assess([near])[0]
    assert (found[1].candidate, found[1].probability) == (None, 0.0)
    again = Assessor.from_document(json.loads(json.dumps(assessor.to_document())))
    assert again.reach == assessor.reach


def test_neighbours_far_behind_the_nearest_are_not_scored():
    lookup = Lookup(text=QUESTION, neighbours=NEIGHBOURS)  # cosines 0.95, 0.9 and 0.8
    for most_behind, scored in ((0.0, 1), (0.051, 2), (0.149, 2), (0.151, 3), (2.0, 3)):
        assessor = Assessor(vetoes=(), pair_scorer=linear(PAIR_NAMES, cosine=-1), most_behind=most_behind)
        assert len(assessor.rows([lookup]).examples) == scored
        assert assessor.assess([lookup])[0].candidate == scored - 1
        assert Assessor.from_document(assessor.to_document()).most_behind == most_behind


def test_some_pairs_of_look_ups_are_those_look_ups_with_fewer_pairs():
    lookups = [Lookup(text=text, neighbours=NEIGHBOURS) for text in (QUESTION, "", "what is dark mode")]
    fewer = [replace(lookup, neighbours=lookup.neighbours[:2]) for lookup in lookups]
    rows, expected = Assessor().rows(lookups), Assessor().rows(fewer)
    found = rows.kept(np.array([True, True, False] * 3))
    assert found.starts.tolist() == expected.starts.tolist()
    assert found.examples.features.tolist() == expected.examples.features.tolist()
    assert (found.answers, found.vetoes) == (expected.answers, expected.vetoes)
    assert found.same_words.tolist() == expected.same_words.tolist()


@pytest.mark.parametrize("at_least", [0.1, 0.5, 0.6, 0.9, 1.0])
def test_what_is_left_out_changes_nothing_at_the_threshold(at_least):
    assessor = Assessor(vetoes=(), reach=Reach(levels=(0.0, 0.4, 0.8), cosines=(0.3, 0.6, 0.92)))
    lookups = [
        Lookup(text=text, neighbours=(Neighbour(entry=1, text="what is dark mode", answer="a", cosine=cosine),))
        for text in (QUESTION, "what is dark mode")
        for cosine in (0.2, 0.35, 0.7, 0.91, 0.93, 1.0)
    ]
    whole, some = assessor.assess(lookups), assessor.assess(lookups, at_least=at_least)
    for all_of_it, part in zip(whole, some, strict=True):
        assert (all_of_it.probability >= at_least) == (part.probability >= at_least)
        if part.probability >= at_least:
            assert part == all_of_it

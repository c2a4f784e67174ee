import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.assessment import Assessor
from halve.techniques.inference.caching.semantic.evidence import Lookup
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.policy import FillLevel, HitPolicy, Promise, default_policy
from halve.techniques.inference.caching.semantic.pooled import PooledThresholds
from halve.techniques.inference.caching.semantic.thresholds import NEVER, choose_threshold

OFF, ON = "how do I turn off dark mode", "how do I turn on dark mode"


def near(text, cosine, entry=7, answer="a"):
    return Neighbour(entry=entry, text=text, answer=answer, cosine=cosine)


def test_without_labels_a_near_question_is_a_hit_and_says_that_nothing_is_proved():
    decision = default_policy().decide(OFF, [near("turn dark mode off, how", 0.97)])
    assert (decision.hit, decision.entry, decision.probability) == (True, 7, 0.97)
    assert decision.reason == "unproven: cosine 0.970, at least 0.950"
    assert default_policy().promise is None


def test_misses_say_why():
    policy = default_policy()
    assert policy.decide(OFF, []).reason == "nothing stored is near"
    assert policy.decide(OFF, [near("dark mode off", 0.8)]).reason == "unproven: cosine 0.800, below 0.950"
    vetoed = policy.decide(OFF, [near(ON, 0.999)])
    assert (vetoed.hit, vetoed.entry, vetoed.probability) == (False, None, 0)
    assert vetoed.reason == "veto: a word stands against its contrary"
    never = HitPolicy(threshold=NEVER).decide(OFF, [near(OFF, 1.0)])
    assert (never.hit, never.reason) == (False, "the cache is not enabled: no threshold keeps the promise")


def test_the_same_words_hit_at_any_threshold_up_to_1():
    decision = HitPolicy(threshold=1.0).decide(OFF, [near(OFF, 0.9999)])
    assert (decision.hit, decision.probability, decision.reason) == (True, 1.0, "the same words")


neighbours = st.lists(
    st.tuples(st.sampled_from([OFF, ON, "dark mode", "2 modes", "3 modes", ""]), st.floats(-1, 1)), max_size=5
).map(
    lambda rows: [
        near(text, cosine, entry=place, answer=text)
        for place, (text, cosine) in enumerate(sorted(rows, key=lambda row: -row[1]))
    ]
)


@given(st.sampled_from([OFF, "2 modes", "mode"]), neighbours, st.floats(0.01, 1))
def test_a_hit_is_an_offered_entry_at_or_above_the_threshold(text, offered, threshold):
    policy = HitPolicy(threshold=threshold)
    decision = policy.decide(text, offered)
    assert decision.hit == (decision.entry is not None)
    assert 0 <= decision.probability <= 1
    assert decision.reason
    if decision.hit:
        assert decision.probability >= threshold
        assert decision.entry in {neighbour.entry for neighbour in offered}
    assert policy.decide(text, offered) == decision
    assert policy.decide_many([Lookup(text=text, neighbours=tuple(offered))] * 2) == [decision, decision]


@given(st.sampled_from([OFF, "2 modes", "mode"]), neighbours, st.floats(0.01, 0.99))
def test_a_lower_threshold_never_misses_what_a_higher_one_serves(text, offered, threshold):
    strict, loose = (HitPolicy(threshold=value).decide(text, offered) for value in (1.0, threshold))
    assert loose.hit or not strict.hit


def test_a_policy_is_a_readable_file():
    choice = choose_threshold([0.9] * 100, [True] * 99 + [False], precision_at_least=0.9)
    pooled = PooledThresholds(pool=choice.threshold)
    pooled.observe(cluster="a", entry=7, probability=0.9, right=True)
    policy = HitPolicy(
        threshold=choice.threshold,
        assessor=Assessor(vetoes=("polarity",)),
        promise=Promise.of(choice),
        filling=(FillLevel(below=16, threshold=1.0), FillLevel(below=40, threshold=0.97)),
        pooled=pooled,
    )
    document = json.loads(json.dumps(policy.to_document()))
    again = HitPolicy.from_document(document)
    assert document["schema"] == "halve.hit-policy/2"
    assert document["promise"]["right_hits"] == 99
    assert again.to_document() == document
    assert again.promise == policy.promise
    assert again.filling == policy.filling
    offered = [near("dark mode off", 0.93)]
    assert again.decide(OFF, offered) == policy.decide(OFF, offered)


def test_a_promise_without_a_threshold_has_no_hits():
    promise = Promise.of(choose_threshold([0.9], [True], precision_at_least=0.9))
    assert (promise.hits, promise.right_hits, promise.look_ups) == (0, 0, 1)
    assert promise.reason.startswith("do not enable")


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ([], "schema must be 'halve.hit-policy/2'. Got 'list'"),
        ({}, "schema must be 'halve.hit-policy/2'. Got None"),
        (default_policy().to_document() | {"schema": "halve.hit-policy/1"}, "Got 'halve.hit-policy/1'"),
        ({"schema": "halve.hit-policy/2"}, "a whole policy document"),
        (default_policy().to_document() | {"assessor": None}, "a whole policy document"),
        (default_policy().to_document() | {"promise": {}}, "a whole policy document"),
        (default_policy().to_document() | {"threshold": 0}, "threshold must be above 0"),
        (default_policy().to_document() | {"filling": [{"below": 3}]}, "a whole policy document"),
        (default_policy().to_document() | {"filling": [{"below": 0, "threshold": 0.5}]}, "below must be at least 1"),
    ],
)
def test_other_and_damaged_documents_are_refused(document, match):
    with pytest.raises(InvalidParameterError, match=match):
        HitPolicy.from_document(document)


def test_a_partition_with_few_entries_has_thresholds_of_its_own():
    filling = (FillLevel(below=16, threshold=1.0), FillLevel(below=64, threshold=0.9))
    policy = HitPolicy(threshold=0.8, filling=filling)
    held = (0, 15, 16, 63, 64, 10**6, None)
    assert [policy.threshold_at(entries) for entries in held] == [1.0, 1.0, 0.9, 0.9, 0.8, 0.8, 0.8]
    assert (policy.most_held, HitPolicy(threshold=0.8).most_held) == (64, 0)
    decided = [policy.decide(OFF, [near("dark mode off", 0.85)], held=entries) for entries in held]
    assert [decision.hit for decision in decided] == [False] * 4 + [True] * 3
    assert decided[0].reason == "unproven: cosine 0.850, below 1.000"
    assert policy.decide(OFF, [near(OFF.upper(), 0.999)], held=0).hit, "the same words"


def test_what_was_learned_of_an_answer_holds_in_a_young_partition_too():
    policy = HitPolicy(threshold=0.8, filling=(FillLevel(below=64, threshold=0.9),), pooled=PooledThresholds(pool=0.8))
    offered = [near("dark mode off", 0.92)]

    def hits(cosine):
        return [policy.decide(OFF, [near("dark mode off", cosine)], held=held).hit for held in (63, 64)]

    assert (hits(0.85), hits(0.92)) == ([False, True], [True, True])
    for _ in range(30):
        policy.observe(offered[0], probability=0.92, right=False)
    assert hits(0.92) == [False, False]


def test_at_a_threshold_of_one_only_the_same_words_are_a_hit():
    policy = HitPolicy(threshold=1.0)
    assert not policy.decide(OFF, [near(f"{OFF}, please", 1.0)]).hit
    assert policy.decide(OFF, [near(f"{OFF}, please", 1.0), near(f" {OFF.upper()}", 0.99, entry=8)]).entry == 8


def test_the_threshold_in_force_is_what_evidence_is_gathered_for():
    class Spy(Assessor):
        def assess(self, lookups, *, at_least=0.0):
            gathered_for.append(at_least)
            return super().assess(lookups, at_least=at_least)

        def vectors_needed(self, neighbours, *, at_least=0.0):
            gathered_for.append(at_least)
            return 0

    policy = HitPolicy(threshold=0.5, assessor=Spy(), filling=(FillLevel(below=16, threshold=0.9),))
    for held in (15, 16, None):
        gathered_for = []
        policy.vectors_needed([near("dark mode", 0.9)], held=held)
        policy.decide(OFF, [near("dark mode", 0.9)], held=held)
        assert gathered_for == [policy.threshold_at(held)] * 2


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (lambda: FillLevel(below=0, threshold=0.5), "below must be at least 1"),
        (lambda: FillLevel(below=1, threshold=1.5), r"threshold of a fill level must be in \(0, 1\]"),
        (
            lambda: HitPolicy(threshold=0.5, filling=(FillLevel(below=9, threshold=0.5),) * 2),
            "filling must be levels by rising",
        ),
    ],
)
def test_bad_levels_are_refused(given, match):
    with pytest.raises(InvalidParameterError, match=match):
        given()


def test_thresholds_of_answers_and_entries_learn_from_labels():
    policy = HitPolicy(threshold=0.9, pooled=PooledThresholds(pool=0.9))
    offered = [near("dark mode off", 0.93)]
    assert policy.decide(OFF, offered).hit
    for _ in range(30):
        policy.observe(offered[0], probability=0.93, right=False)
    assert not policy.decide(OFF, offered).hit
    plain = HitPolicy(threshold=0.9)
    plain.observe(offered[0], probability=0.93, right=False)
    assert plain.decide(OFF, offered).hit


def test_the_same_words_are_all_that_can_be_said_of_what_has_no_answer_yet():
    policy, vector = default_policy(), np.ones(2, np.float32)
    others = [
        Neighbour(entry=4, text="how do i pay him", answer="?", cosine=0.99),
        Neighbour(entry=7, text="How do I  pay", answer="?", cosine=0.9),
    ]
    found = policy.same_words("how do I pay", others, vector=vector, vectors=np.ones((2, 2), np.float32))
    assert (found.hit, found.entry, found.probability) == (True, 7, 1.0)
    none = policy.same_words("how do I pay it", others, vector=vector, vectors=np.ones((2, 2), np.float32))
    assert (none.hit, none.entry, none.probability) == (False, None, 0.0)

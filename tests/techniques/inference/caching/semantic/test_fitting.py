import json

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import training
from halve.techniques.inference.caching.semantic.evidence import Lookup
from halve.techniques.inference.caching.semantic.fitting import (
    LabelledLookup,
    LabelledPairs,
    calibrated,
    fit_assessor,
    fit_policy,
)
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.network import NetworkRecipe
from halve.techniques.inference.caching.semantic.policy import HitPolicy
from halve.techniques.inference.caching.semantic.training import ScorerRecipe

VERBS = ("open", "close", "paint", "clean", "sell", "move", "lift", "break", "hide", "wash")
THINGS = ("door", "gate", "wall", "car", "boat", "lamp", "chair", "table", "roof", "shelf")
FORMS = ("how do I {} the {}", "what is the way to {} a {}", "best method to {} my {}", "please {} this {} for me")
QUICK = ScorerRecipe(trees=20, leaves=4, network=NetworkRecipe(width=8, epochs=2))


def vector_of(verb, thing, rng):
    vector = np.zeros(20)
    vector[verb], vector[10 + thing] = 1.0, 2.0
    vector += rng.normal(0, 0.25, 20)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def world(count, *, seed):
    """Questions about a verb and a thing; an answer is right if both are the same. Vectors care more for the thing."""
    rng = np.random.default_rng(seed)
    stored = []
    for verb in range(10):
        for thing in range(10):
            text = FORMS[(verb + thing) % 4].format(VERBS[verb], THINGS[thing])
            stored.append((text, f"{verb} {thing}", vector_of(verb, thing, rng)))
    stored = [stored[place] for place in rng.permutation(100)[:70]]
    matrix = np.stack([vector for _, _, vector in stored])
    found = []
    for _ in range(count):
        verb, thing = rng.integers(0, 10, 2)
        vector = vector_of(verb, thing, rng)
        cosines = matrix @ vector
        nearest = np.argsort(-cosines)[:5]
        neighbours = tuple(
            Neighbour(entry=int(place), text=stored[place][0], answer=stored[place][1], cosine=float(cosines[place]))
            for place in nearest
        )
        text = FORMS[rng.integers(4)].format(VERBS[verb], THINGS[thing])
        lookup = Lookup(text=text, neighbours=neighbours, vector=vector, vectors=matrix[nearest])
        found.append(LabelledLookup(lookup=lookup, answer=f"{verb} {thing}"))
    return found


def test_a_policy_keeps_its_promise_on_look_ups_it_never_saw(monkeypatch):
    monkeypatch.setattr(training, "FEWEST_FOR_NETWORK", 1_000)
    fitted = fit_policy(world(500, seed=0), calibration=world(500, seed=1), precision_at_least=0.9, recipe=QUICK)
    policy = fitted.policy
    assert fitted.choice.point is not None
    assert policy.assessor.lookup_scorer is not None
    assert policy.assessor.pair_scorer.dimension == 20
    served = right = could = nearest_right = 0
    for labelled in world(800, seed=2):
        lookup = labelled.lookup
        decision = policy.decide(lookup.text, lookup.neighbours, vector=lookup.vector, vectors=lookup.vectors)
        answers = {neighbour.entry: neighbour.answer for neighbour in lookup.neighbours}
        could += labelled.answer in answers.values()
        nearest_right += labelled.is_right(0)
        if decision.hit:
            served += 1
            right += answers[decision.entry] == labelled.answer
    assert right / served >= 0.9
    assert right > 0.6 * could
    assert policy.promise.right_hits == fitted.choice.point.true_hits
    assert np.mean(fitted.probabilities >= policy.threshold) > 0.3
    again = HitPolicy.from_document(json.loads(json.dumps(policy.to_document())))
    assert again.decide_many([world(1, seed=3)[0].lookup]) == policy.decide_many([world(1, seed=3)[0].lookup])


def test_one_assessor_serves_several_targets():
    assessor = fit_assessor(world(150, seed=0), recipe=QUICK)
    calibration = world(400, seed=1)
    loose, strict = (
        calibrated(assessor, calibration, precision_at_least=target).policy.threshold for target in (0.7, 0.9)
    )
    assert loose <= strict


def test_pairs_alone_teach_the_pair_scorer():
    lookups = world(300, seed=0)
    rows = [(labelled, place) for labelled in lookups for place in range(3)]
    pairs = LabelledPairs(
        ones=[labelled.lookup.text for labelled, _ in rows],
        others=[labelled.lookup.neighbours[place].text for labelled, place in rows],
        right=np.array([labelled.is_right(place) for labelled, place in rows]),
        one_vectors=np.stack([labelled.lookup.vector for labelled, _ in rows]),
        other_vectors=np.stack([labelled.lookup.vectors[place] for labelled, place in rows]),
        groups=[labelled.answer for labelled, _ in rows],
    )
    assessor = fit_assessor([], pairs=pairs, recipe=QUICK)
    assert assessor.lookup_scorer is None
    assert assessor.pair_scorer is not None
    both = fit_assessor(world(30, seed=5), pairs=pairs, recipe=QUICK)
    assert both.lookup_scorer is None  # fewer look-ups than a scorer of look-ups needs
    mean = np.mean([found.probability for found in both.assess([labelled.lookup for labelled in world(50, seed=6)])])
    assert 0.1 < mean < 0.9
    with pytest.raises(InvalidParameterError, match=r"groups must be as many as pairs, 900. Got 1"):
        fit_assessor([], pairs=LabelledPairs(**{**_fields(pairs), "groups": ["a"]}), recipe=QUICK)


def _fields(pairs):
    return {
        name: getattr(pairs, name) for name in ("ones", "others", "right", "one_vectors", "other_vectors", "groups")
    }


def test_useless_evidence_gives_a_policy_that_serves_nothing():
    rng = np.random.default_rng(0)
    mixed = [
        LabelledLookup(lookup=labelled.lookup, answer=str(rng.integers(100)), group=str(number))
        for number, labelled in enumerate(world(120, seed=0))
    ]
    fitted = fit_policy(mixed[:60] + world(3, seed=9), calibration=mixed[60:], precision_at_least=0.9, recipe=QUICK)
    assert fitted.choice.point is None
    lookup = mixed[0].lookup
    assert not fitted.policy.decide(lookup.text, lookup.neighbours).hit
    assert fitted.policy.promise.hits == 0


def test_what_is_right_and_what_stays_together():
    lookup = Lookup(text="q", neighbours=(Neighbour(entry=1, text="t", answer="a", cosine=0.9),))
    known = LabelledLookup(lookup=lookup, answer="a")
    assert known.is_right(0)
    assert not known.is_right(None)
    assert not LabelledLookup(lookup=lookup, answer="b").is_right(0)
    assert not LabelledLookup(lookup=lookup, answer="").is_right(0)
    assert known.fold_key == "a"
    assert LabelledLookup(lookup=lookup, answer="a", group="g").fold_key == "g"
    assert LabelledLookup(lookup=lookup, answer="").fold_key == "text q"


def test_too_few_labels_are_refused():
    with pytest.raises(InvalidParameterError, match=r"labels must be at least 20. Got 8"):
        fit_assessor(world(2, seed=0))


def test_what_is_farther_than_nearly_all_right_ones_is_not_looked_into():
    lessons = world(1500, seed=3)
    assessor = fit_assessor(lessons, recipe=QUICK)
    nearest = [one.lookup.neighbours[0].cosine for one in lessons]
    assert min(nearest) < assessor.reach.least_cosine(0.5) < np.median(nearest)
    few = fit_assessor(world(150, seed=4), recipe=QUICK)
    assert few.reach.least_cosine(1.0) == -1.0, "too few right ones to say how far they may be"
    assert few.most_behind == 2.0
    assert 0 <= assessor.most_behind < 2.0

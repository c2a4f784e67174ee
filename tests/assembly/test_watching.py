import numpy as np
import pytest

from halve.assembly.watching import SETTINGS, ProductionWatch, stricter
from halve.core import Acceptance, Prediction
from halve.errors import InvalidParameterError

SURE = Acceptance(rule="maximum_probability", threshold=0.6)
ROWS = Prediction(
    answers=np.array([0, 0, 0]), probabilities=np.array([[0.65, 0.35], [0.85, 0.15], [0.95, 0.05]], np.float32)
)


def told(watch, *, wrong_share, shadows, seed=0, skipped=9):
    """Tell the watch of so many comparisons; return every sentence it said."""
    random = np.random.default_rng(seed)
    said = [watch.shadow(same=bool(random.random() >= wrong_share), skipped=skipped) for _ in range(shadows)]
    return [sentence for sentence in said if sentence]


def test_thresholds_tighten_step_by_step_and_then_nothing_stands():
    watch = ProductionWatch(share=0.1, disagreement_at_most=0.02)
    accepts = watch.accepts(SURE)
    assert accepts(ROWS).tolist() == [True, True, True]
    seen = []
    for _ in range(2000):
        said = told(watch, wrong_share=1.0, shadows=1, seed=len(seen) + 7)
        if said:
            seen.append((watch.place, accepts(ROWS).tolist()))
        if watch.place == len(SETTINGS):
            break
    assert seen[0] == (1, [False, True, True])
    assert seen[-1] == (len(SETTINGS), [False, False, False])
    assert told(watch, wrong_share=1.0, shadows=5) == [], "it is off: there is nothing left to say"


def test_what_it_says_names_figures_and_consequence():
    watch = ProductionWatch(share=0.5, disagreement_at_most=0.02)
    (said, *_) = told(watch, wrong_share=0.9, shadows=200, skipped=1)
    assert said.startswith("watch: the certified setting loses ")
    assert said.endswith("promised is 0.0200: tightened to the one half as far from certainty")


def test_a_kept_promise_is_rarely_called_broken():
    # Of 200 services that keep the promise, exactly at its edge, at most 5 % and chance may ever tighten.
    alarms = 0
    for seed in range(200):
        watch = ProductionWatch(share=0.2, disagreement_at_most=0.05)
        alarms += bool(told(watch, wrong_share=0.05, shadows=300, seed=seed, skipped=4))
    assert alarms <= 18


def test_the_bound_falls_as_agreement_is_seen():
    watch = ProductionWatch(share=0.5, disagreement_at_most=0.05)
    before = watch.upper_bound
    told(watch, wrong_share=0.0, shadows=400, skipped=1)
    assert watch.upper_bound < min(before, 0.05)


@pytest.mark.parametrize("place", [0, 1, 2, 5])
def test_stricter_never_loosens(place):
    assert stricter(SURE, place).threshold == pytest.approx(1 - 0.4 / 2**place)
    never = Acceptance(rule="maximum_probability", threshold=2.0)
    assert stricter(never, place).threshold == 2.0


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"share": 0.0}, r"shadow_share must be in \(0, 1\]"),
        ({"disagreement_at_most": 1.0}, r"disagreement_at_most must be in \(0, 1\)"),
    ],
)
def test_bad_numbers_are_one_sentence(numbers, sentence):
    with pytest.raises(InvalidParameterError, match=sentence):
        ProductionWatch(**{"share": 0.1, "disagreement_at_most": 0.05, **numbers})

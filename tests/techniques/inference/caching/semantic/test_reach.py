import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.reach import FEWEST, Reach

THREE = Reach(levels=(0.0, 0.5, 0.9), cosines=(0.2, 0.6, 0.8))


def test_by_hand():
    assert [THREE.least_cosine(probability) for probability in (0.0, 0.49, 0.5, 0.89, 0.9, 1.0, 2.0)] == [
        0.2, 0.2, 0.6, 0.6, 0.8, 0.8, 0.8,
    ]  # fmt: skip
    assert THREE.most(0.1) < 1e-300
    assert THREE.most(0.2) == pytest.approx(0.5)
    assert THREE.most(0.2) < 0.5
    assert 0.89 < THREE.most(0.79) < 0.9
    assert THREE.most(0.8) == 1.0


def test_without_evidence_nothing_is_limited():
    assert (Reach().least_cosine(0.0), Reach().least_cosine(1.0), Reach().most(-1.0)) == (-1.0, -1.0, 1.0)


levels = st.lists(st.integers(1, 99), unique=True, max_size=6).map(
    lambda found: (0.0, *(p / 100 for p in sorted(found)))
)
reaches = levels.flatmap(
    lambda found: st.lists(st.floats(-1, 1), min_size=len(found), max_size=len(found)).map(
        lambda cosines: Reach(levels=found, cosines=tuple(sorted(cosines)))
    )
)


@given(reaches, st.floats(-1, 1), st.floats(0.0001, 1))
def test_what_is_not_looked_into_could_not_have_reached_the_threshold(reach, cosine, threshold):
    assert (cosine >= reach.least_cosine(threshold)) == (reach.most(cosine) >= threshold)


@given(reaches, st.floats(-1, 1), st.floats(-1, 1))
def test_nearer_is_never_less_sure(reach, one, other):
    assert reach.most(min(one, other)) <= reach.most(max(one, other))


def test_learned_from_right_look_ups():
    generator = np.random.default_rng(0)
    sure = generator.uniform(0, 1, 20_000)
    nearest = 0.5 + 0.4 * sure + generator.normal(0, 0.02, 20_000)
    reach = Reach.of(nearest, sure)
    for threshold in (0.05, 0.5, 0.8):
        served = sure >= threshold
        lost = served & (nearest < reach.least_cosine(threshold))
        assert lost.sum() / served.sum() == pytest.approx(0.002, abs=0.001)


def test_few_say_nothing_and_leave_the_level_before():
    assert Reach.of([0.9] * (FEWEST - 1), [0.9] * (FEWEST - 1)).most(-1.0) == 1.0
    some = Reach.of([0.5] * FEWEST + [0.9] * (FEWEST - 1), [0.3] * FEWEST + [0.9] * (FEWEST - 1))
    assert some.least_cosine(0.9) == some.least_cosine(0.3) == 0.5
    assert Reach.of([], []).cosines[-1] == -1.0


def test_a_document_gives_the_same():
    assert Reach.from_document(json.loads(json.dumps(THREE.to_document()))) == THREE


def test_bad_values_are_named():
    with pytest.raises(InvalidParameterError, match="levels must be rising from 0"):
        Reach(levels=(0.1,), cosines=(0.5,))
    with pytest.raises(InvalidParameterError, match="levels must be rising from 0"):
        Reach(levels=(0.0, 0.5, 0.5), cosines=(0.1, 0.2, 0.3))
    for cosines in ((0.5, 0.4), (0.5,), (0.5, 1.5), (float("nan"), 0.5)):
        with pytest.raises(InvalidParameterError, match=r"cosines must be 2 in \[-1, 1\] that never fall"):
            Reach(levels=(0.0, 0.5), cosines=cosines)

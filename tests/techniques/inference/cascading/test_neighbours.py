import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.neighbours import NeighbourSuccess, exact_nearest

PAST = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
SCORES = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])


def test_estimate_by_hand():
    known = NeighbourSuccess(scores=SCORES, nearest=exact_nearest(PAST), neighbours=2, prior_weight=1.0)
    # (1, 0): cosines 1 and 0.8, scores (1, 0) and (1, 1); means 2/3 and 1/3.
    found = known.estimate(np.array([[1.0, 0.0]]))
    assert found == pytest.approx(np.array([[(2 / 3 + 1.8) / 2.8, (1 / 3 + 0.8) / 2.8]]))


def test_a_request_does_not_vouch_for_itself():
    known = NeighbourSuccess(scores=SCORES, nearest=exact_nearest(PAST), neighbours=1, prior_weight=1.0)
    found = known.estimate(PAST[:1], leave_out=np.array([0]))
    # Left without itself, the nearest is the third: cosine 0.8, scores (1, 1).
    assert found == pytest.approx(np.array([[(2 / 3 + 0.8) / 1.8, (1 / 3 + 0.8) / 1.8]]))


def test_opposite_and_missing_neighbours_count_nothing():
    known = NeighbourSuccess(scores=SCORES[:1], nearest=exact_nearest(PAST[:1]), neighbours=5)
    assert known.estimate(np.array([[-1.0, 0.0]])) == pytest.approx(SCORES[:1])

    def nothing(vectors, k):
        return np.full((len(vectors), k), -1, dtype=np.int64), np.zeros((len(vectors), k))

    empty = NeighbourSuccess(scores=SCORES, nearest=nothing)
    assert empty.estimate(PAST) == pytest.approx(np.tile(SCORES.mean(axis=0), (3, 1)))


@given(st.integers(0, 1000), st.integers(1, 12))
def test_look_up_is_a_full_sort(seed, k):
    random = np.random.default_rng(seed)
    past, asked = random.normal(size=(9, 4)), random.normal(size=(5, 4))
    places, cosines = exact_nearest(past)(asked, k)
    everything = asked @ past.T
    assert np.allclose(cosines, -np.sort(-everything, axis=1)[:, :k])
    assert np.allclose(np.take_along_axis(everything, places, axis=1), cosines)


@pytest.mark.parametrize(
    "changes", [{"scores": np.zeros((0, 2))}, {"scores": SCORES * 2}, {"neighbours": 0}, {"prior_weight": 0.0}]
)
def test_wrong_input_is_refused(changes):
    with pytest.raises(InvalidParameterError):
        NeighbourSuccess(**({"scores": SCORES, "nearest": exact_nearest(PAST)} | changes))

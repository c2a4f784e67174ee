import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.inference.caching.semantic import trees as module
from halve.techniques.inference.caching.semantic.trees import BoostedTrees, fit_trees, mean_forest


def drawn(n=600, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4))
    features[:, 1] = np.round(features[:, 1])
    right = (features[:, 0] > 0) ^ (features[:, 1] > 0) ^ (rng.random(n) < 0.1)
    return features, right


@pytest.mark.parametrize("leaves", [2, 15])
def test_numpy_reads_the_trees_as_the_library_does(leaves):
    features, right = drawn()
    model = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=leaves, early_stopping=False, random_state=0)
    model.fit(features, right)
    others = np.random.default_rng(1).normal(size=(200, 4)) * 3
    assert module._as_arrays(model).logits(others) == pytest.approx(model.decision_function(others), rel=1e-12)


def test_they_learn_what_no_line_separates():
    features, right = drawn()
    fitted = fit_trees(features, right, trees=60)
    others, answers = drawn(seed=1)
    assert np.mean((fitted.logits(others) > 0) == answers) > 0.8


def test_a_tree_by_hand():
    stump = BoostedTrees(
        base=0.5,
        roots=np.array([0], dtype=np.int64),
        feature=np.array([1, 0, 0], dtype=np.int64),
        threshold=np.array([2.0, 0.0, 0.0]),
        children=np.array([1, 2, 1, 1, 2, 2], dtype=np.int64),
        value=np.array([0.0, -1.0, 3.0]),
        depth=1,
    )
    assert stump.logits(np.array([[9.0, 2.0], [9.0, 2.1]])).tolist() == [-0.5, 3.5]
    assert stump.logits(np.zeros((0, 2))).shape == (0,)


@given(st.integers(1, 30))
def test_a_row_does_not_depend_on_the_others(count):
    features, right = drawn(n=200)
    fitted = _small(features, right)
    assert fitted.logits(features[:count]).tolist() == fitted.logits(features)[:count].tolist()


def test_arrays_and_back():
    features, right = drawn()
    fitted = fit_trees(features, right, trees=5)
    again = BoostedTrees.from_arrays(fitted.arrays(), features=4)
    assert again.logits(features).tolist() == fitted.logits(features).tolist()


def test_the_mean_of_forests_has_the_mean_of_their_log_odds():
    features, right = drawn()
    forests = [fit_trees(features, right, trees=trees, leaves=leaves) for trees, leaves in ((3, 2), (5, 15))]
    expected = np.mean([forest.logits(features) for forest in forests], axis=0)
    assert mean_forest(forests).logits(features) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_many_rows_are_read_in_pieces(monkeypatch):
    features, right = drawn()
    fitted = fit_trees(features, right, trees=5)
    whole = fitted.logits(features)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    assert fitted.logits(features).tolist() == whole.tolist()


@pytest.mark.parametrize("change", [{"children": 99}, {"children": -1}, {"feature": 4}, {"roots": 10_000}])
def test_nodes_that_point_outside_are_refused(change):
    features, right = drawn()
    arrays = fit_trees(features, right, trees=2).arrays()
    (name, value) = next(iter(change.items()))
    with pytest.raises(InvalidParameterError, match="nodes that point inside"):
        BoostedTrees.from_arrays(arrays | {name: np.full_like(arrays[name], value)}, features=4)


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'halve\[cache\]'"):
        fit_trees(*drawn())


_FITTED: dict[int, BoostedTrees] = {}


def _small(features, right):
    return _FITTED.setdefault(len(features), fit_trees(features, right, trees=3))

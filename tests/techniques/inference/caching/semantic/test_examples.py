import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.terms import pair_terms


def drawn(n, *, vectors=True, terms=True):
    features = np.arange(n * 2.0).reshape(n, 2)
    some = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    texts = [f"w{number}" for number in range(n)]
    return Examples(
        features=features,
        ones=some if vectors else None,
        others=some + 1 if vectors else None,
        terms=pair_terms(texts, texts) if terms else None,
    )


def test_rows_are_kept_together():
    whole = drawn(4)
    rows = np.array([True, False, False, True])
    some = whole.kept(rows)
    assert len(some) == 2
    assert some.features.tolist() == whole.features[rows].tolist()
    assert some.others.tolist() == whole.others[rows].tolist()
    assert len(some.terms) == 2
    assert (whole.dimension, drawn(4, vectors=False).dimension) == (3, 0)
    assert drawn(4, vectors=False, terms=False).kept(rows).ones is None


def test_joining():
    whole = drawn(2).followed_by(drawn(3))
    assert len(whole) == len(whole.ones) == len(whole.others) == len(whole.terms) == 5
    bare = drawn(2).followed_by(drawn(3, vectors=False, terms=False))
    assert (len(bare), bare.ones, bare.others, bare.terms) == (5, None, None, None)
    empty = Examples(features=np.zeros((0, 2)))
    assert len(empty.followed_by(drawn(3)).terms) == len(drawn(3).followed_by(empty).terms) == 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"features": np.zeros(3)}, r"features must be of shape \(n, f\)"),
        ({"ones": np.zeros((2, 3), np.float32)}, "both given or neither"),
        ({"ones": np.zeros((2, 3), np.float32), "others": np.zeros((2, 4), np.float32)}, r"of shape \(2, d\)"),
        ({"ones": np.zeros((3, 3), np.float32), "others": np.zeros((3, 3), np.float32)}, r"of shape \(2, d\)"),
        ({"terms": pair_terms(["a"], ["b"])}, "terms must be of 2 pairs. Got 1"),
    ],
)
def test_what_does_not_fit_is_refused(given, match):
    with pytest.raises(InvalidParameterError, match=match):
        Examples(**({"features": np.zeros((2, 2))} | given))

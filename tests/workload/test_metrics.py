import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Metric
from halve.errors import InvalidParameterError
from halve.workload import Accuracy


def test_is_a_metric() -> None:
    metric: Metric = Accuracy()
    assert (metric.name, metric.is_binary) == ("accuracy", True)


def test_class_indices() -> None:
    scores = Accuracy().score(np.array([0, 2, 1]), [0, 1, 1])
    assert scores.tolist() == [1.0, 0.0, 1.0]
    assert scores.dtype == np.float64


def test_texts() -> None:
    assert Accuracy().score(np.array(["yes", "no"], dtype=object), ["yes", "No"]).tolist() == [1.0, 0.0]


def test_nothing_scores_nothing() -> None:
    scores = Accuracy().score(np.array([], dtype=np.int64), [])
    assert scores.shape == (0,)
    assert scores.dtype == np.float64


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_every_score_is_whether_the_two_are_equal(pairs: list[tuple[int, int]]) -> None:
    answers, references = zip(*pairs, strict=True)
    scores = Accuracy().score(np.array(answers), references)
    assert scores.tolist() == [1.0 if left == right else 0.0 for left, right in pairs]


def test_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"references must be as many as the answers, 2\. Got 1"):
        Accuracy().score(np.array([1, 2]), [1])


@pytest.mark.parametrize(
    ("answers", "references"),
    [
        (np.array([0, 1]), ["cat", "dog"]),
        (np.array(["cat", "dog"], dtype=object), [0, 1]),
        (np.array([0, 1]), [0, "x"]),
    ],
)
def test_indices_against_texts_are_refused_instead_of_all_wrong(answers: np.ndarray, references: list) -> None:
    with pytest.raises(InvalidParameterError, match=r"same kind as the answers.*examples\.labels"):
        Accuracy().score(answers, references)

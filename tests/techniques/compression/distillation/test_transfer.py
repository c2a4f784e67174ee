import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Variation, augment_texts, near_words

TEXTS = ["book a flight to rome", "find me a flight", "what is my balance", "show the balance of my account"]
GROUPS = [0, 0, 1, 1]
NOTHING = {"replacement": 0.0, "dropout": 0.0, "swap": 0.0, "crossing": 0.0, "joining": 0.0}


def words(texts):
    return {word for text in texts for word in text.split()}


@given(count=st.integers(0, 60), seed=st.integers(0, 50))
def test_all_are_new_different_and_of_known_words(count, seed):
    made = augment_texts(TEXTS, GROUPS, count=count, seed=seed)
    assert len(made) <= count
    assert len(set(made)) == len(made)
    assert not set(made) & set(TEXTS)
    assert words(made) <= words(TEXTS)
    assert made == augment_texts(TEXTS, GROUPS, count=count, seed=seed)


def test_crossing_stays_within_a_group():
    made = augment_texts(TEXTS, GROUPS, count=30, seed=0, variation=Variation(**{**NOTHING, "crossing": 1.0}))
    groups = [words(TEXTS[:2]), words(TEXTS[2:])]
    assert len(made) > 10
    assert all(any(words([text]) <= group for group in groups) for text in made)


def test_each_change_does_what_it_says():
    def made(**change):
        return augment_texts(
            ["a b c d"],
            [0],
            count=3,
            seed=1,
            variation=Variation(**{**NOTHING, **change}),
            neighbours={"b": ["x"]},
        )

    assert made() == []
    assert made(replacement=1.0) == ["a x c d"]
    assert set(made(swap=1.0)) == {"b a c d", "a c b d", "a b d c"}
    assert all(len(text.split()) < 4 for text in made(dropout=0.5))
    assert made(joining=1.0) == ["a b c d a b c d"]


def test_neighbours_are_the_nearest_by_direction():
    vectors = np.array([[1, 0], [2, 0.2], [0, 1], [-1, -1.2]], np.float32)
    near = near_words(vectors - vectors.mean(0), ["a", "b", "c", "d"], count=2, least_cosine=0.0)
    assert near["a"][0] == "b"
    assert near["b"][0] == "a"
    assert "d" not in near
    assert near_words(vectors, ["a", "b", "c", "d"], least_cosine=0.9999) == {}


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameterError, match=r"crossing must be in \[0, 1\]\. Got 2"):
        Variation(crossing=2)
    with pytest.raises(InvalidParameterError, match="groups must be one for each of at least one text"):
        augment_texts(TEXTS, [0], count=1, seed=0)
    with pytest.raises(InvalidParameterError, match="groups must be one for each of at least one text"):
        augment_texts([], [], count=1, seed=0)
    with pytest.raises(InvalidParameterError, match="vectors must be one row for each of 3 words"):
        near_words(np.zeros((2, 2), np.float32), ["a", "b", "c"])

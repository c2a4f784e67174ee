import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.among import (
    earlier_in_partition,
    first_of_each,
    lookups_among,
    lookups_in_time,
)


def unit(rows):
    array = np.asarray(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_each_text_finds_the_others_nearest_first():
    vectors = unit([[1, 0], [1, 0.1], [0, 1]])
    first, second, third = lookups_among(["a", "b", "c"], vectors, ["x", "y", "x"], count=2)
    assert [near.text for near in first.neighbours] == ["b", "c"]
    assert [near.answer for near in first.neighbours] == ["y", "x"]
    assert first.neighbours[0].cosine == pytest.approx(1 / np.sqrt(1.01), abs=1e-6)
    assert [near.text for near in second.neighbours] == ["a", "c"]
    assert [near.entry for near in third.neighbours] == [1, 0]
    np.testing.assert_array_equal(first.vectors, vectors[[1, 2]])


def test_an_identical_text_is_no_neighbour():
    vectors = unit([[1, 0], [1, 0], [0, 1]])
    first, *_ = lookups_among(["a", "a", "b"], vectors, ["x", "x", "y"])
    assert [near.text for near in first.neighbours] == ["b"]


def test_a_text_alone_finds_nothing():
    (only,) = lookups_among(["a"], unit([[1, 0]]), ["x"])
    assert only.neighbours == ()
    assert only.vectors.shape == (0, 2)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**16))
def test_it_is_the_sort_by_cosine(n, count, seed):
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(n, 5)))
    texts = [f"text {number}" for number in range(n)]
    for row, lookup in enumerate(lookups_among(texts, vectors, texts, count=count)):
        cosines = [near.cosine for near in lookup.neighbours]
        assert cosines == sorted(cosines, reverse=True)
        assert len(cosines) == min(count, n - 1)
        assert row not in {near.entry for near in lookup.neighbours}
        others = np.delete(vectors @ vectors[row], row)
        np.testing.assert_allclose(cosines, np.sort(others)[::-1][:count], atol=1e-6)


def test_lengths_must_agree():
    with pytest.raises(InvalidParameterError, match="equally many"):
        lookups_among(["a"], unit([[1, 0], [0, 1]]), ["x"])
    with pytest.raises(InvalidParameterError, match="count must be at least 1"):
        lookups_among(["a"], unit([[1, 0]]), ["x"], count=0)
    with pytest.raises(InvalidParameterError, match="partitions must be equally many"):
        lookups_in_time(["a"], unit([[1, 0]]), ["x"], [])
    with pytest.raises(InvalidParameterError, match="count must be at least 1"):
        lookups_in_time(["a"], unit([[1, 0]]), ["x"], ["p"], count=0)
    with pytest.raises(InvalidParameterError, match="stored must be at least 1"):
        lookups_in_time(["a"], unit([[1, 0]]), ["x"], ["p"], stored=0)


@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 2**16))
def test_in_time_only_earlier_texts_of_the_partition_are_seen(n, homes, seed):
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(n, 4)))
    texts, partitions = (
        [f"text {number}" for number in range(n)],
        [str(home) for home in random.integers(homes, size=n)],
    )
    found = lookups_in_time(texts, vectors, texts, partitions, count=5)
    for row, lookup in enumerate(found):
        allowed = [other for other in range(row) if partitions[other] == partitions[row]]
        assert {near.entry for near in lookup.neighbours} <= set(allowed)
        assert len(lookup.neighbours) == min(5, len(allowed))


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 50), st.integers(1, 9), st.integers(0, 2**16))
def test_a_window_is_the_latest_of_the_partition(n, homes, stored, count, seed):
    random = np.random.default_rng(seed)
    vectors, texts = unit(random.normal(size=(n, 4))), [f"text {number}" for number in range(n)]
    partitions = [str(home) for home in random.integers(homes, size=n)]
    earlier = earlier_in_partition(partitions)
    places = np.flatnonzero(random.random(n) < 0.7)
    found = lookups_in_time(texts, vectors, texts, partitions, places=places, stored=stored, count=count)
    for place, lookup in zip(places.tolist(), found, strict=True):
        before = [other for other in range(place) if partitions[other] == partitions[place]]
        assert earlier[place] == len(before)
        inside = before[-stored:]
        expected = sorted((float(vectors[other] @ vectors[place]) for other in inside), reverse=True)[:count]
        assert {near.entry for near in lookup.neighbours} <= set(inside)
        assert [near.cosine for near in lookup.neighbours] == pytest.approx(expected, abs=1e-6)
        assert (lookup.text, lookup.vectors.shape) == (texts[place], (len(expected), 4))


def test_a_window_as_long_as_the_log_is_the_log():
    random = np.random.default_rng(0)
    vectors, texts = unit(random.normal(size=(2500, 4))), [f"text {number}" for number in range(2500)]
    partitions = [str(home) for home in random.integers(2, size=2500)]
    whole = lookups_in_time(texts, vectors, texts, partitions, count=3)
    found = lookups_in_time(texts, vectors, texts, partitions, places=np.arange(2500), stored=2500, count=3)
    assert [[near.entry for near in each.neighbours] for each in found] == [
        [near.entry for near in each.neighbours] for each in whole
    ]


def test_only_the_first_of_each_text_is_new():
    assert first_of_each(["a", "b", "a", "a"], ["x", "x", "x", "y"]).tolist() == [0, 1, 3]

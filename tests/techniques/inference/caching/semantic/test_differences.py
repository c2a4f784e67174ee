import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.differences import NAMES, differences, differences_of_pairs
from halve.techniques.inference.caching.semantic.rarity import Rarity

TEXT = """
how what is the turn on off 2 two 2.0 5 km 2016 monday May not never best worst from paris to Rome India a
happy unhappy Как è ? . $ % 10k how much der und
"""
WORDS = TEXT.split()
texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join) | st.text(max_size=20)


def named(one, other, **options):
    return {name: float(value) for name, value in zip(NAMES, differences(one, other, **options), strict=True) if value}


@given(texts, texts)
def test_symmetric_finite_and_never_negative(one, other):
    there, back = differences(one, other), differences(other, one)
    assert there.tolist() == back.tolist()
    assert np.all(np.isfinite(there))
    assert np.all(there >= 0)


@given(texts)
def test_equal_texts_do_not_differ(text):
    assert not differences(text, text).any()
    assert not differences(text, f"  {text} ").any()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("turn the light on", "turn the light off", {"polarity": 1, "poles_in_one": 2}),
        ("is it good", "is it not good", {"negation": 1}),
        ("2 kg", "3 kg", {"numbers": 1, "quantities": 1}),
        ("2 kg", "2 km", {"numbers": 0, "quantities": 1}),
        ("2 kg", "two kilos", {"numbers": 0, "quantities": 0}),
        ("2 kg", "kg", {"numbers": 0, "numbers_in_one": 1, "quantities": 1}),
        ("in 2016", "in 2017", {"dates": 1, "numbers": 0}),
        ("in 2016", "then", {"dates": 0, "dates_in_one": 1}),
        ("who did it", "when did it", {"question": 1}),
        ("who did it", "they did it", {"question": 0, "question_in_one": 1}),
        ("from Paris to Rome", "from Rome to Paris", {"direction": 1, "words": 0, "inversions": 1}),
        ("dogs bite men", "men bite dogs", {"inversions": 1, "words": 0, "direction": 0}),
        ("I live in India", "I live in China", {"names": 2, "names_most": 1}),
        ("как дела", "how are things", {"script": 1}),
        ("wie wird das Wetter", "how is the weather", {"language": 1}),
        ("a b c d", "a b c e", {"words": 0.4, "bigrams": 0.5, "last_word": 1, "first_word": 0, "prefix": 0.25}),
        ("abc", "abcdef", {"characters": 0.5, "count": 0, "grams_of_shorter": 1 / 3}),
        ("red green", "red green blue black", {"content_of_shorter": 0, "content_count_most": 2, "count": 0.5}),
    ],
)
def test_differences_by_hand(one, other, expected):
    found = named(one, other)
    assert {name: found.get(name, 0.0) for name in expected} == pytest.approx(expected)


def test_words_weigh_by_their_rarity():
    rarity = Rarity.of_texts(["the red", "the green", "the blue", "the red"])
    common, rare = named("the red", "red", rarity=rarity), named("the red", "the", rarity=rarity)
    assert common.get("rare_words_most", 0) == 0  # `the` stands in every text
    assert rare["rarest_most"] == pytest.approx(rarity("red"))
    assert "rarest_least" not in rare


def test_many_pairs_as_one_by_one():
    ones, others = ["a b", "turn on", ""], ["b c", "turn off", "x"]
    rows = differences_of_pairs(ones, others)
    assert rows.tolist() == [differences(one, other).tolist() for one, other in zip(ones, others, strict=True)]
    assert differences_of_pairs([], []).shape == (0, len(NAMES))
    with pytest.raises(InvalidParameterError, match=r"as many of each. Got \(1, 0\)"):
        differences_of_pairs(["a"], [])


def test_the_same_in_another_process_whatever_order_sets_have():
    pairs = [("red green blue pink", "grey white green black"), ("the one two", "a b c d")]
    code = (
        "from halve.techniques.inference.caching.semantic.differences import differences_of_pairs\n"
        f"print(differences_of_pairs(*zip(*{pairs!r})).tobytes().hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_a_hostile_text_costs_little():
    one, other = "un" * 5_000, " ".join(f"w{number}" for number in range(5_000))
    assert differences(one, other).shape == (len(NAMES),)
    backwards = " ".join(reversed(other.split()))
    assert differences(other, backwards).shape == (len(NAMES),)

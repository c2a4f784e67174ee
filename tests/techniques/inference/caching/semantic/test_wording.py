import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.techniques.inference.caching.semantic.wording import LONGEST_TEXT, wording


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2", {"2"}),
        ("two and 2.0", {"2"}),
        ("twenty five", {"25"}),
        ("twenty", {"20"}),
        ("two hundred thousand", {"200000"}),
        ("2.5 lakh and 10k", {"250000", "10000"}),
        ("1,000.5 or 1,00,000", {"1000.5", "100000"}),
        ("a million", {"1000000"}),
        ("the tenth time", {"10"}),
        ("iphone6s and mp3", {"6", "3"}),
        ("the one I love", set()),
        ("0.5 and .", {"0.5"}),
        ("in 1984", set()),
        ("no number", set()),
    ],
)
def test_numbers_have_one_form(text, numbers):
    assert wording(text).numbers == numbers


@pytest.mark.parametrize(
    ("text", "quantities"),
    [
        ("5 km", {"5 kilometre"}),
        ("five kilometers", {"5 kilometre"}),
        ("$5", {"5 dollar"}),
        ("5 dollars", {"5 dollar"}),
        ("20 %", {"20 percent"}),
        ("3 apples", {"3"}),
    ],
)
def test_a_unit_beside_a_number_belongs_to_it(text, quantities):
    assert wording(text).quantities == quantities


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("in 2016", {"year 2016"}),
        ("on Monday, jan 5", {"day 1", "month 1"}),
        ("may I ask", set()),
        ("what happens in May", {"month 5"}),
        ("from 5 may on", {"month 5"}),
        ("they march today", {"today"}),
        ("2016 km", {"year 2016"}),
        ("9999 things", set()),
    ],
)
def test_dates_are_read_where_they_are_meant(text, dates):
    assert wording(text).dates == dates


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Who is it?", "who"),
        ("which one", "what"),
        ("how do I", "how"),
        ("How much is it", "how much"),
        ("Is it so?", "whether"),
        ("In Rome, where do I eat", "where"),
        ("book a table", ""),
    ],
)
def test_what_is_asked_for(text, question):
    assert wording(text).question == question


def test_negations_are_counted_however_the_apostrophe_is_typed():
    texts = ("I can", "I can't", "I can\u2019t never", "cannot", "not without")
    assert [wording(text).negations for text in texts] == [
        0, 1, 2, 1, 2,
    ]  # fmt: skip


def test_names_are_capitals_within_a_sentence_and_abbreviations():
    assert wording("Do people in India like the USA? People do").names == {"india", "usa"}
    assert wording("IBM is old").names == {"ibm"}
    assert wording("How To Cook Rice Well").names == frozenset()  # every word has a capital: none tells anything


def test_directions_join_what_stands_around_a_connector():
    assert wording("fly from Paris to Rome").directions == {("paris", "fly"), ("paris", "rom")}
    assert wording("to Rome from Paris").directions == {("paris", "rom")}
    assert wording("is C++ better than the Java").directions == {("better", "java")}
    assert wording("how to cook").directions == frozenset()


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("what is the time", "LATIN", "english"),
        ("wie wird das Wetter und wo", "LATIN", "german"),
        ("comment est la ville", "LATIN", "french"),
        ("Как дела", "CYRILLIC", ""),
        ("你好", "CJK", ""),
        ("12", "", ""),
        ("xyz", "LATIN", ""),
    ],
)
def test_script_and_language(text, script, language):
    assert (wording(text).script, wording(text).language) == (script, language)


def test_words_of_one_text_by_hand():
    found = wording("  Turn  OFF the lights ")
    assert found.text == "turn off the lights"
    assert found.words == ("turn", "off", "the", "light")
    assert found.content == {"turn", "off", "light"}
    assert found.places == {"turn": 0, "off": 1, "light": 2}
    assert found.poles == {"off", "light"}
    assert ("off", "the") in found.bigrams
    assert {" tu", "ts "} <= found.grams
    assert wording("C++ and C#").words == ("c++", "and", "c#")


@given(st.text(max_size=60))
def test_any_text_can_be_read(text):
    found = wording(text)
    assert found.content <= found.known == set(found.words)
    assert found.poles <= found.known
    assert set(found.places) == found.content


def test_a_very_long_text_is_read_from_its_start_only():
    assert wording("a " * LONGEST_TEXT + "5") is not None
    assert wording("a " * LONGEST_TEXT + "5").numbers == frozenset()


def test_digits_of_other_scripts_and_odd_signs_raise_nothing():
    assert wording("٣ and ² and ½ and 1٣").script == "LATIN"

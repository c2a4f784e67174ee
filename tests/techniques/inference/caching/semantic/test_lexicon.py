import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.techniques.inference.caching.semantic import lexicon
from halve.techniques.inference.caching.semantic.lexicon import OPPOSITES, contraries, stem


def test_opposites_are_mutual_and_no_word_is_its_own():
    for word, others in OPPOSITES.items():
        assert word not in others
        assert all(word in OPPOSITES[other] for other in others)


@pytest.mark.parametrize(
    ("forms", "name"),
    [
        (("enable", "enables", "enabled", "enabling"), "enabl"),
        (("stop", "stops", "stopped", "stopping"), "stop"),
        (("country", "countries"), "country"),
        (("class", "bus", "this", "is"), None),
    ],
)
def test_forms_of_a_word_share_a_stem_and_others_stay(forms, name):
    assert {stem(form) for form in forms} == ({name} if name else set(forms))


@given(st.text("abcdeginsu", max_size=9))
def test_a_stem_is_a_beginning_and_never_longer(word):
    found = stem(word)
    assert len(found) <= len(word)
    assert found[:-1] == word[: len(found) - 1]  # -ies ends in y


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        ({"on"}, {"off"}, 1),
        ({"happy"}, {"unhappy"}, 1),
        ({"correct"}, {"incorrect"}, 1),
        ({"come"}, {"income"}, 0),
        ({"lock"}, {"unlock"}, 1),  # listed and by prefix: counted once
        ({"gain", "best"}, {"los", "worst"}, 2),
        ({"on"}, {"on"}, 0),
        (set(), {"off"}, 0),
    ],
)
def test_contraries_are_counted_alike_both_ways(one, other, pairs):
    assert contraries(frozenset(one), frozenset(other)) == contraries(frozenset(other), frozenset(one)) == pairs


def test_units_months_and_languages_have_one_name_per_word():
    assert lexicon.UNITS["km"] == lexicon.UNITS["kilometers"] == "kilometre"
    assert lexicon.MONTHS["sept"] == lexicon.MONTHS["september"] == "month 9"
    assert {"the", "what"} <= lexicon.LANGUAGES["english"]
    assert "one" not in lexicon.NUMBER_WORDS
    assert lexicon.NUMBER_WORDS["nineteen"] == 19
    assert lexicon.NUMBER_WORDS["two"] == 2
    assert lexicon.ORDINALS["tenth"] == 10

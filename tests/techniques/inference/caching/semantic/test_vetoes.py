import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.vetoes import DEFAULT_VETOES, VETOES, checked_vetoes, first_veto

EXAMPLES = {
    "numbers": ("wait 2 days", "wait 3 days"),
    "numbers_in_one": ("wait 2 days", "wait some days"),
    "dates": ("who won in 2016", "who won in 2012"),
    "dates_in_one": ("who won in 2016", "who won"),
    "negation": ("can I eat it", "can't I eat it"),
    "polarity": ("turn on dark mode", "turn off dark mode"),
    "direction": ("a flight from Paris to Rome", "a flight from Rome to Paris"),
    "script": ("привет всем", "hello all"),
    "too_long": ("a " * 1_500, "b " * 1_500),
    "language": ("wie wird das Wetter und wo", "how is the weather and what is it"),
}


def test_every_rule_has_an_example():
    assert set(EXAMPLES) == set(VETOES)
    assert set(DEFAULT_VETOES) < set(VETOES)


@pytest.mark.parametrize("name", VETOES)
def test_a_rule_forbids_its_example_both_ways_and_names_itself(name):
    one, other = EXAMPLES[name]
    for pair in ((one, other), (other, one)):
        found = first_veto(*pair, names=[name])
        assert found is not None
        assert found.name == name
        assert found.says
    assert name == "too_long" or first_veto(one, one, names=VETOES) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("wait 2 days", "wait two days"),
        ("how do I turn off dark mode", "how to switch dark mode off"),
        ("I don't like it", "I do not like it"),
        ("fly from Paris to Rome", "a flight to Rome from Paris"),
    ],
)
def test_restatements_pass(one, other):
    assert first_veto(one, other) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_order_of_texts_does_not_matter(one, other):
    assert first_veto(one, other, names=VETOES) == first_veto(other, one, names=VETOES)


def test_only_what_is_named_is_asked():
    assert first_veto(*EXAMPLES["numbers"], names=["dates"]) is None
    assert first_veto(*EXAMPLES["numbers"], names=[]) is None


def test_unknown_names_are_refused():
    assert checked_vetoes(["numbers"]) == ("numbers",)
    with pytest.raises(InvalidParameterError, match=r"vetoes must be some of numbers, .* Got 'colour'"):
        checked_vetoes(["numbers", "colour"])

from dataclasses import replace

import numpy as np
import pytest

from halve import chains
from halve.core import Objective
from halve.techniques.inference.cascading import SHARES_OF_THE_BUDGET

PROMISE = 0.03


@pytest.fixture
def bench(table_bench, tmp_path):
    """`full`, `small` before it, and `cut` and `cut-int8`, which were made of `full` and err more."""
    return table_bench(
        tmp_path,
        objective=Objective(quality_drop_at_most=PROMISE, latency_p99_seconds=0.1),
        wrong={"cut": 0.025, "cut-int8": 0.2},
        seconds={"cut": (0.004, 0.001), "cut-int8": (0.003, 0.0005)},
    )


@pytest.fixture
def cascade(bench, baseline_of):
    """The boldest cascade: it spends the whole promise with `full` behind."""
    *_, boldest = chains.asked_first(baseline_of(bench), bench, bench.tables["small"])
    return boldest.stack


def bound(bench, stack):
    return bench.drop_upper_bound(np.asarray(bench.measure(stack).scores))


def threshold(stack):
    return stack.model_stages[0].accept


def test_cautious_places_stand_first_and_all_keep_the_promise(bench, baseline_of):
    places = list(chains.asked_first(baseline_of(bench), bench, bench.tables["small"]))
    shares = [place.accept_share for place in places]
    assert 1 < len(places) <= len(SHARES_OF_THE_BUDGET)
    assert shares == sorted(shares)
    for place in places:
        assert [model.name for model in place.stack.models] == ["small", "full"]
        assert bound(bench, place.stack) <= PROMISE
        composed = bench.measure(place.stack)
        assert place.description.startswith("small first, ")
        assert composed.quality >= 0.9


def test_another_first_model_makes_room(bench, cascade):
    for place in chains.asked_first(cascade, bench, bench.tables["cut"]):
        assert [model.name for model in place.stack.models] == ["cut", "full"]


def test_answers_without_probabilities_cannot_go_first(bench, baseline_of, monkeypatch):
    unsure = replace(bench.outcomes(bench.tables["small"]), probabilities=None)
    ask = bench.outcomes
    monkeypatch.setattr(
        bench, "outcomes", lambda model, split="search": unsure if model.name == "small" else ask(model, split=split)
    )
    assert list(chains.asked_first(baseline_of(bench), bench, bench.tables["small"])) == []


def test_a_single_model_is_replaced_and_nothing_else(bench, baseline_of):
    made = [bench.tables["cut"], bench.tables["cut-int8"]]
    places = list(chains.instead_of_last(baseline_of(bench), bench, made))
    assert [place.description for place in places] == ["full replaced by cut", "full replaced by cut-int8"]
    assert [[model.name for model in place.stack.models] for place in places] == [["cut"], ["cut-int8"]]


def test_behind_a_cascade_the_fastest_is_tried_alone_and_with_new_thresholds(bench, cascade):
    made = [bench.tables["cut"], bench.tables["cut-int8"]]
    places = list(chains.instead_of_last(cascade, bench, made))
    assert [place.description for place in places[:4]] == [
        "full replaced by cut",
        "cut alone",
        "full replaced by cut-int8",
        "cut-int8 alone",
    ]
    again = places[4:]
    assert again
    assert len({place.stack for place in places}) == len(places), "no stack is proposed twice"
    for place in again:
        assert [model.name for model in place.stack.models] == ["small", "cut-int8"]
        assert place.description.startswith("full replaced by cut-int8, small first, ")
        assert bound(bench, place.stack) <= PROMISE


def test_new_thresholds_save_a_model_that_breaks_the_promise_under_the_old_one(bench, cascade):
    kept, *rest = chains.instead_of_last(cascade, bench, [bench.tables["cut-int8"]])
    assert threshold(kept.stack) == threshold(cascade)
    assert bound(bench, kept.stack) > PROMISE
    assert any(bound(bench, place.stack) <= PROMISE and len(place.stack.models) == 2 for place in rest)


def test_nothing_made_is_nothing_proposed(bench, cascade):
    assert list(chains.instead_of_last(cascade, bench, [])) == []

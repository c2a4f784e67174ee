from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Rung
from halve.gate import PairedGate
from halve.optimize import climb
from halve.testing.scripted import Script, ScriptedBench, ScriptedLever, scripted_stack


def climbed(script: dict[int, Script], *levers: ScriptedLever, label: str | None = None) -> tuple[object, list[Rung]]:
    bench, rungs = ScriptedBench(script=script), []
    gate = PairedGate(objective=bench.objective)
    reached = climb(
        scripted_stack(1),
        levers=levers,
        bench=bench,
        gate=gate,
        baseline=bench.measure(scripted_stack(1)),
        record=rungs.append,
        label=label,
    )
    return reached, rungs


def test_the_cheapest_that_passes_stays_and_the_others_say_why_not() -> None:
    script = {1: Script(usd=8), 2: Script(usd=6), 3: Script(usd=4), 4: Script(usd=1, wrong=500), 5: Script(usd=9)}
    reached, rungs = climbed(script, ScriptedLever(name="a", numbers=(2, 3, 4, 5)))
    assert reached.stack == scripted_stack(3)
    assert [rung.verdict.decision for rung in rungs] == ["reject", "keep", "reject", "reject"]
    assert "passes, but number 3 is cheaper" in rungs[0].verdict.reason
    assert "provably worse than promised" in rungs[2].verdict.reason
    assert "costs 12.5 % more" in rungs[3].verdict.reason
    assert [trial.description for trial in reached.passed] == ["number 2", "number 3"]


def test_of_equals_the_first_stays() -> None:
    script = {1: Script(usd=8), 2: Script(usd=4), 3: Script(usd=4)}
    reached, rungs = climbed(script, ScriptedLever(name="a", numbers=(2, 3)))
    assert reached.stack == scripted_stack(2)
    assert "costs the same and stands first" in rungs[1].verdict.reason


def test_each_lever_starts_where_the_last_one_ended() -> None:
    script = {1: Script(usd=8), 2: Script(usd=4), 3: Script(usd=2)}
    levers = (ScriptedLever(name="a", numbers=(2,)), ScriptedLever(name="b", numbers=(3,), only_after=2))
    reached, rungs = climbed(script, *levers)
    assert reached.stack == scripted_stack(3)
    assert [rung.lever for rung in rungs] == ["a", "b"]


def test_a_lever_with_nothing_to_offer_is_a_rung_without_a_measurement() -> None:
    _, rungs = climbed({1: Script(usd=8)}, ScriptedLever(name="a"))
    assert rungs[0].measurement is None
    assert rungs[0].verdict.reason == "a has nothing to offer"
    _, silent = climbed({1: Script(usd=8)}, ScriptedLever(name="a"), label="joint_search")
    assert silent == []


def test_an_impossible_promise_is_a_verdict() -> None:
    reached, rungs = climbed({1: Script(usd=8), 2: Script(usd=1, fits=False)}, ScriptedLever(name="a", numbers=(2,)))
    assert reached.stack == scripted_stack(1)
    assert rungs[0].verdict.reason == "no number of replicas answers 99 % of requests within 0.1 s"


def test_a_label_replaces_the_levers_name() -> None:
    reached, rungs = climbed({1: Script(usd=8), 2: Script(usd=4)}, ScriptedLever(name="a", numbers=(2,)), label="joint")
    assert rungs[0].lever == reached.passed[0].lever == "joint"


numbers = st.integers(2, 9)
scripts = st.fixed_dictionaries(
    {
        number: st.builds(
            Script,
            usd=st.floats(0.5, 10),
            wrong=st.integers(0, 60),
            latency_seconds=st.floats(0.001, 0.2),
            fits=st.booleans(),
        )
        for number in range(2, 10)
    }
)


@given(scripts, st.lists(st.lists(numbers, max_size=4), min_size=1, max_size=3))
def test_the_ladder_never_keeps_a_rejected_change(script: dict[int, Script], proposals: list[list[int]]) -> None:
    script = {1: Script(usd=5.0), **script}
    levers = [ScriptedLever(name=str(i), numbers=tuple(row)) for i, row in enumerate(proposals)]
    reached, rungs = climbed(script, *levers)
    kept = [rung for rung in rungs if rung.verdict.keep]
    assert reached.stack == (kept[-1].stack if kept else scripted_stack(1))
    costs = [5.0, *(rung.measurement.usd_per_1k_requests for rung in kept if rung.measurement)]
    assert all(later < earlier for earlier, later in pairwise(costs))
    for rung in kept:
        assert rung.measurement is not None
        assert rung.measurement.latency.p99_seconds <= 0.1
        assert 1 - rung.measurement.quality <= 0.01
    assert reached.measurement.usd_per_1k_requests == pytest.approx(costs[-1])

from dataclasses import replace

from halve.core import Rung
from halve.core.progress import Silent
from halve.gate import PairedGate
from halve.optimize import Optimizer, Outcome
from halve.testing.scripted import Script, ScriptedBench, ScriptedLever, scripted_stack


def walked(
    script: dict[int, Script], ladder: list[ScriptedLever], joint: list[ScriptedLever]
) -> tuple[Outcome, ScriptedBench, list[Rung]]:
    bench, rungs = ScriptedBench(script=script), []
    gate = PairedGate(objective=bench.objective)
    optimizer = Optimizer(bench=bench, gate=gate, ladder=ladder, joint=joint, record=rungs.append, progress=Silent())
    return optimizer.walk(scripted_stack(1)), bench, rungs


def test_the_walk_ends_at_the_cheapest_certified_stack() -> None:
    script = {1: Script(usd=8), 2: Script(usd=4), 3: Script(usd=2, wrong=3)}
    outcome, _, rungs = walked(script, [ScriptedLever(name="a", numbers=(2,))], [ScriptedLever(name="b", numbers=(3,))])
    assert outcome.final_stack == scripted_stack(3)
    assert outcome.saving_rate == 0.75
    assert outcome.certificate.holds
    assert outcome.certificate.n == 2000
    assert [step.description for step in outcome.certificate.steps] == ["number 2", "number 3"]
    assert outcome.final.split == outcome.baseline.split == "certify"
    assert list(outcome.rungs) == rungs
    assert rungs[-1].lever == "joint_search"


def test_the_certify_split_is_not_looked_at_before_the_end() -> None:
    script = {1: Script(usd=8), 2: Script(usd=4), 3: Script(usd=2)}
    _, bench, _ = walked(script, [ScriptedLever(name="a", numbers=(2, 3))], [ScriptedLever(name="b", numbers=(2,))])
    splits = [split for _, split in bench.asked]
    assert "certify" in splits
    assert splits == sorted(splits, key=lambda split: split == "certify")


def test_nothing_passed_leaves_the_baseline() -> None:
    outcome, _, _ = walked({1: Script(usd=8), 2: Script(usd=9)}, [ScriptedLever(name="a", numbers=(2,))], [])
    assert outcome.final_stack == outcome.baseline_stack == scripted_stack(1)
    assert outcome.saving_rate == 0
    assert outcome.certificate.holds
    assert outcome.certificate.steps == ()


def test_joint_sweeps_go_on_while_they_find_something() -> None:
    script = {1: Script(usd=8), 2: Script(usd=6), 3: Script(usd=4), 4: Script(usd=2)}
    joint = [
        ScriptedLever(name="c", numbers=(4,), only_after=3),
        ScriptedLever(name="b", numbers=(3,), only_after=2),
        ScriptedLever(name="a", numbers=(2,), only_after=1),
    ]
    outcome, _, _ = walked(script, [], joint)
    assert outcome.final_stack == scripted_stack(4)


class _OtherOnCertify(ScriptedBench):
    """Stack 3 is worse on the certify split than the search split let hope."""

    def measure(self, stack, *, split="search"):  # type: ignore[no-untyped-def]
        kept = dict(self.script)
        if split == "certify":
            self.script = {**kept, 3: Script(usd=2, wrong=100)}
        try:
            return super().measure(stack, split=split)
        finally:
            self.script = kept


def test_a_failed_certificate_falls_back_to_the_step_before() -> None:
    bench = _OtherOnCertify(script={1: Script(usd=8), 2: Script(usd=4), 3: Script(usd=2, wrong=3)})
    gate = PairedGate(objective=bench.objective)
    ladder = [ScriptedLever(name="a", numbers=(2,)), ScriptedLever(name="b", numbers=(3,))]
    optimizer = Optimizer(bench=bench, gate=gate, ladder=ladder, joint=[], record=lambda rung: None, progress=Silent())
    outcome = optimizer.walk(scripted_stack(1))
    assert [step.passed for step in outcome.certificate.steps] == [True, False]
    assert outcome.final_stack == scripted_stack(2)


class _SlowOnCertify(ScriptedBench):
    """Stack 2 is too slow on the certify split; fitted there, it becomes stack 3."""

    def measure(self, stack, *, split="search"):  # type: ignore[no-untyped-def]
        measured = super().measure(stack, split=split)
        if split == "certify" and stack == scripted_stack(2):
            slow = (0.5,) * len(measured.latency.quantile_seconds)
            return replace(measured, latency=replace(measured.latency, quantile_seconds=slow))
        return measured

    def fit(self, stack, *, split="search"):  # type: ignore[no-untyped-def]
        return scripted_stack(3) if split == "certify" else super().fit(stack)


def test_a_certified_stack_that_turns_out_too_slow_gets_more_replicas() -> None:
    bench = _SlowOnCertify(script={1: Script(usd=8), 2: Script(usd=4), 3: Script(usd=5)})
    optimizer = Optimizer(
        bench=bench,
        gate=PairedGate(objective=bench.objective),
        ladder=[ScriptedLever(name="a", numbers=(2,))],
        joint=[],
        record=lambda rung: None,
        progress=Silent(),
    )
    outcome = optimizer.walk(scripted_stack(1))
    assert outcome.final_stack == scripted_stack(3)
    assert outcome.certificate.holds

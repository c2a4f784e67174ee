from dataclasses import replace

import numpy as np
import pytest

from halve.core import Gate, Latency, LedgerLine, Measurement, Objective
from halve.errors import InvalidParameterError
from halve.gate import PairedGate, drop_upper_bound

OBJECTIVE = Objective(quality_drop_at_most=0.01, confidence=0.95, latency_p99_seconds=0.1)
N = 2_000


def scores(*, losses=0, gains=0, n=N):
    """Scores of a candidate whose baseline is right on the first nine tenths."""
    values = np.array([1.0] * (n * 9 // 10) + [0.0] * (n - n * 9 // 10))
    values[:losses] = 0.0
    values[n - gains :] = 1.0
    return tuple(values.tolist())


def measured(*, usd=0.01, p99=0.05, split="search", name="stack", values=None):
    return Measurement(
        stack=name,
        provenance="simulated",
        split=split,
        scores=scores() if values is None else values,
        ledger=(LedgerLine(name="full model", usd_per_1k_requests=usd),),
        latency=Latency.of(np.full(10, p99)),
        utilization={"full": 0.5},
        stage_share={"full": 1.0},
        instances={"c6a.large": 1},
        peak_memory_bytes=1,
        n_requests=10,
    )


@pytest.fixture
def gate() -> Gate:
    return PairedGate(objective=OBJECTIVE)


def judge(gate, after, *, before=None):
    baseline = measured(usd=0.02)
    return gate.judge(baseline=baseline, before=before or baseline, after=after)


def test_a_saving_with_a_small_drop_is_kept_with_its_numbers(gate):
    verdict = judge(
        gate, measured(usd=0.0072, p99=0.043, values=scores(losses=5, gains=3)), before=measured(usd=0.0123)
    )
    bound = drop_upper_bound(np.array(scores()), np.array(scores(losses=5, gains=3)), confidence=0.95)
    assert verdict.keep
    assert verdict.reason == (
        f"saves 41.5 % ($0.0123 -> $0.0072 per 1,000), drop 0.10 points (at most {100 * bound:.2f} at 95 %), "
        "p99 43.0 ms of 100.0 ms"
    )
    assert verdict.numbers == {
        "usd_before": 0.0123,
        "usd_after": 0.0072,
        "saving_rate": pytest.approx(1 - 72 / 123),
        "quality_before": 0.9,
        "quality_after": 0.899,
        "quality_baseline": 0.9,
        "quality_drop": 0.001,
        "quality_drop_upper_bound": bound,
        "latency_p99_seconds": 0.043,
        "n_pairs": N,
        "p_value": pytest.approx(verdict.numbers["p_value"]),
    }
    assert 0 < verdict.numbers["p_value"] <= 0.05


def test_a_gain_is_shown_as_a_negative_drop(gate):
    verdict = judge(gate, measured(values=scores(gains=10)))
    assert verdict.keep
    assert "drop -0.50 points" in verdict.reason


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ({"usd": 0.03}, "costs 50.0 % more ($0.02 -> $0.03 per 1,000)"),
        ({"usd": 0.0199}, "saves 0.5 % ($0.02 -> $0.0199 per 1,000), less than 1 %"),
        ({"p99": 0.13}, "p99 130.0 ms is over the promised 100.0 ms"),
        (
            {"usd": 0.03, "p99": 0.13},
            "costs 50.0 % more ($0.02 -> $0.03 per 1,000); p99 130.0 ms is over the promised 100.0 ms",
        ),
    ],
)
def test_dear_or_slow_changes_are_rejected_with_the_numbers(gate, after, reason):
    verdict = judge(gate, measured(**after))
    assert verdict.decision == "reject"
    assert verdict.reason == reason


def test_a_little_over_one_percent_is_enough_and_the_promise_itself_is_fast_enough(gate):
    assert judge(gate, measured(usd=0.0197, p99=0.1)).keep


def test_a_change_that_measures_the_same_is_rejected(gate):
    before = measured(name="one")
    verdict = judge(gate, replace(before, stack="two"), before=before)
    assert (verdict.decision, verdict.reason) == ("reject", "measures exactly as before: nothing changed")


def test_nothing_can_be_saved_on_a_free_stack(gate):
    verdict = judge(gate, measured(usd=0.0, values=scores(gains=1)), before=measured(usd=0.0))
    assert verdict.decision == "reject"
    assert verdict.numbers["saving_rate"] == 0.0


def test_a_clear_loss_is_called_provably_worse(gate):
    verdict = judge(gate, measured(values=scores(losses=100)))
    assert verdict.reason.startswith("provably worse than promised: drop 5.00 points (at least 4.")
    assert verdict.reason.endswith("at 95 %), 1.00 allowed")


def test_a_drop_over_the_promise_that_is_not_proven_asks_for_no_examples(gate):
    verdict = judge(gate, measured(values=scores(losses=40, gains=15)))
    assert verdict.reason.startswith("drop 1.25 points (at most 1.")
    assert verdict.reason.endswith("1.00 allowed")


def test_too_few_examples_are_told_how_many(gate):
    verdict = judge(gate, measured(values=scores(losses=60, gains=56)))
    assert verdict.decision == "reject"
    assert verdict.reason.startswith("drop 0.20 points (at most 1.")
    assert "2,000 examples are too few, about " in verdict.reason
    need = int(verdict.reason.split("about ")[1].split()[0].replace(",", ""))
    assert 5_000 < need < 8_000


def test_quality_is_judged_against_the_baseline_not_the_step_before(gate):
    before, after = measured(usd=0.015, values=scores(losses=12)), measured(usd=0.01, values=scores(losses=24))
    verdict = judge(gate, after, before=before)
    assert verdict.decision == "reject"
    assert verdict.numbers["quality_drop"] == pytest.approx(0.012)


def certify(gate, *losses, n=N):
    baseline = measured(split="certify", values=scores(n=n))
    steps = [("lever", f"{lost} lost", measured(split="certify", values=scores(losses=lost, n=n))) for lost in losses]
    return gate.certify(baseline=baseline, steps=steps)


def test_the_certificate_speaks_for_the_last_step_that_passed(gate):
    found = certify(gate, 0, 4, 40, 2)
    assert found.holds
    assert [step.passed for step in found.steps] == [True, True, False]
    assert [step.description for step in found.steps] == ["0 lost", "4 lost", "40 lost"]
    assert found.quality_drop == found.steps[1].quality_drop == 0.002
    assert found.quality_drop_upper_bound == found.steps[1].quality_drop_upper_bound <= 0.01
    assert (found.n, found.confidence, found.quality_drop_at_most) == (N, 0.95, 0.01)
    assert found.method == "exact paired proportions (Berger & Boos 1994)"
    assert 0 < found.minimum_detectable_drop < 0.01


def test_a_step_passes_if_and_only_if_its_p_value_is_small(gate):
    for step in certify(gate, 0, 4, 8, 9, 10, 11, 12, 40).steps:
        assert step.passed == (step.p_value <= 0.05)


def test_a_certificate_whose_first_step_fails_does_not_hold(gate):
    found = certify(gate, 40, 0)
    assert not found.holds
    assert len(found.steps) == 1
    assert found.quality_drop == 0.02
    assert found.quality_drop_upper_bound == found.steps[0].quality_drop_upper_bound > 0.02


def test_a_certificate_without_steps_speaks_for_the_baseline(gate):
    found = certify(gate)
    assert found.holds
    assert (found.quality_drop, found.quality_drop_upper_bound, found.steps) == (0.0, 0.0, ())
    assert 0 < found.minimum_detectable_drop < 0.01


def test_scores_between_0_and_1_are_certified_by_betting():
    gate = PairedGate(objective=replace(OBJECTIVE, quality_drop_at_most=0.02), is_binary=False)
    rng = np.random.default_rng(1)
    base = rng.beta(8, 2, N)
    baseline, same, worse = (
        measured(split="certify", values=tuple(np.clip(base + shift, 0, 1).tolist())) for shift in (0, -0.004, -0.1)
    )
    found = gate.certify(baseline=baseline, steps=[("a", "same", same), ("b", "worse", worse)])
    assert [step.passed for step in found.steps] == [True, False]
    assert found.method == "betting (Waudby-Smith & Ramdas 2024)"
    assert 0 < found.minimum_detectable_drop < 0.02
    assert gate.certify(baseline=baseline, steps=[]).holds


@pytest.mark.parametrize("wrong", ["baseline", "before", "after"])
def test_the_search_gate_refuses_certify_scores(gate, wrong):
    given = {name: measured() for name in ("baseline", "before", "after")} | {
        wrong: measured(split="certify", name="peeked")
    }
    with pytest.raises(InvalidParameterError, match=r"split of 'peeked' must be 'search'\. Got 'certify'"):
        gate.judge(**given)


def test_the_certificate_refuses_search_scores(gate):
    with pytest.raises(InvalidParameterError, match=r"split of 'tuned' must be 'certify'\. Got 'search'"):
        gate.certify(baseline=measured(split="certify"), steps=[("a", "b", measured(name="tuned"))])


def test_scores_that_do_not_pair_up_are_refused(gate):
    with pytest.raises(InvalidParameterError, match=r"Got \(\(2000,\), \(10,\)\)"):
        judge(gate, measured(values=scores(n=10)))

"""The watch with the gate's evidence: a test may bring together what the rooms may not."""

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.gate.anytime import ShadowLoss
from halve.techniques.inference.cascading.watch import Watch

PROMISE, PROPENSITY = 0.05, 0.25


def watch(settings=("bold", "cautious")):
    return Watch(
        settings=settings,
        evidence=lambda: ShadowLoss(loss_at_most=PROMISE, confidence=0.95, least_propensity=PROPENSITY),
        loss_at_most=PROMISE,
        confidence=0.95,
    )


def served(watch, random, *, requests, loss):
    """Serve requests whose loss depends on the setting in force; return the losses and the verdicts that acted."""
    losses, acted, skipped = [], [], 0
    lots, shadows = random.random(requests).tolist(), (random.random(requests) < PROPENSITY).tolist()
    for lot, shadow in zip(lots, shadows, strict=True):
        lost = float(lot < loss[watch.setting])
        losses.append(lost)
        if not shadow:
            skipped += 1
            continue
        verdict = watch.shadow(lost, propensity=PROPENSITY, skipped=skipped)
        skipped = 0
        if verdict.action != "keep":
            acted.append(verdict)
        if watch.is_off:
            break
    return losses, acted


def test_false_alarms_are_at_most_1_in_20_streams():
    # The loss is exactly the promise: the hardest stream that keeps it.
    alarms = sum(
        bool(served(watch(), np.random.default_rng(seed), requests=800, loss={"bold": PROMISE, "cautious": 0.0})[1])
        for seed in range(500)
    )
    assert alarms / 500 <= 0.05


def test_a_break_is_found_and_the_promise_restored():
    kept = 0
    for seed in range(20):
        one, random = watch(), np.random.default_rng(seed)
        served(one, random, requests=2000, loss={"bold": 0.02, "cautious": 0.01})
        assert one.setting == "bold"
        shifted = {"bold": 0.2, "cautious": 0.03, "off": 0.0}
        losses, acted = served(one, random, requests=6000, loss=shifted)
        assert [verdict.action for verdict in acted] == ["tighten"]
        kept += np.mean(losses[-3000:]) <= PROMISE
    assert kept == 20


def test_it_goes_off_when_no_setting_keeps_the_promise():
    one = watch()
    _, acted = served(one, np.random.default_rng(0), requests=20_000, loss={"bold": 0.3, "cautious": 0.3})
    assert [verdict.action for verdict in acted] == ["tighten", "off"]
    assert one.is_off
    assert (one.setting, one.place) == ("off", 2)
    assert one.shadow(1.0, propensity=1.0).action == "off"


def test_the_reason_has_the_numbers():
    one = watch(("only",))
    _, (verdict,) = served(one, np.random.default_rng(1), requests=20_000, loss={"only": 0.5})
    assert verdict.reason == (
        f"only loses {verdict.mean_loss:.4f} per request over {verdict.requests} requests "
        f"({verdict.shadows} shadowed), promised is 0.0500: switched off"
    )
    assert verdict.evidence >= 20


def test_the_same_results_give_the_same_verdicts():
    runs = []
    for _ in range(2):
        one, random = watch(), np.random.default_rng(9)
        runs.append([one.shadow(float(random.random() < 0.4), propensity=0.5, skipped=1) for _ in range(60)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("changes", [{"settings": ()}, {"confidence": 0.4}])
def test_wrong_input_is_refused(changes):
    arguments = {"settings": ("a",), "evidence": lambda: None, "loss_at_most": 0.1, "confidence": 0.95}
    with pytest.raises(InvalidParameterError):
        Watch(**(arguments | changes))

"""fp32 to integers in one call: try what fits the model, measure each on this host, keep the best, say why.

Every candidate is a finished artifact, run by the deployed runtime on inputs that it was not calibrated on. The
winner has the least error among those that are about as fast as the fastest. Layers that are slower in integers
than in fp32 on this host stay fp32; so do the most sensitive ones, if an error budget asks for it. An artifact
that is wrong here, or no faster than fp32, is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import ModelError
from halve.techniques.compression.quantization.agreement import Agreement, agreement
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.crossover import LayerTiming, Timer, layer_timings, time_models
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.mixed_precision import Option, choose_layers, sensitivity
from halve.techniques.compression.quantization.recipes import Plan, StaticRecipe, carry_out, worth_trying
from halve.techniques.compression.quantization.runtime import run_logits

CHECK_SHARE = 0.25
"""Share of the calibration inputs that no candidate is calibrated on, and all are compared on."""

ABOUT_AS_FAST = 1.1
"""Candidates within this factor of the fastest are compared by error: timings of one host vary as much."""

_MOST_TIGHTENINGS = 4
"""Times that a budget is made smaller because the errors of layers did not add up as taken."""

WRONG = 1.0
"""A relative RMSE from here on is no answer at all: as far from fp32 as the logits are from their mean."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One artifact that was tried.

    Args:
        name: Its recipe in words.
        agreement: With fp32, on the check inputs.
        seconds: Median of one call with a check batch.
        fp32_layers: Layers left in fp32.
    """

    name: str
    agreement: Agreement
    seconds: float
    fp32_layers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """The artifact that was chosen, and what it was chosen from.

    Args:
        content: The ONNX model.
        plan: What its integers are.
        chosen: How it did.
        tried: All candidates, in the order they were tried.
        fp32_seconds: Of the fp32 model, measured among the candidates.
        timings: Per layer, alone, in fp32 and in INT8.
        reasons: Why a layer stayed in fp32, by layer name.
    """

    content: bytes
    plan: Plan
    chosen: Candidate
    tried: tuple[Candidate, ...]
    fp32_seconds: float
    timings: Mapping[str, LayerTiming]
    reasons: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """What every candidate is compared on."""

    check: Batches
    expected: NDArray[np.float32]
    fp32: bytes
    timer: Timer | None

    def tried(self, artifacts: Mapping[str, bytes], *, fp32_layers: frozenset[str]) -> tuple[list[Candidate], float]:
        """Return the candidates, and the seconds of the fp32 model measured among them."""
        seconds = time_models({"fp32": self.fp32, **artifacts}, self.check[0], timer=self.timer)
        candidates = [
            Candidate(
                name=name,
                agreement=agreement(self.expected, run_logits(content, self.check)),
                seconds=seconds[name],
                fp32_layers=tuple(sorted(fp32_layers)),
            )
            for name, content in artifacts.items()
        ]
        return candidates, seconds["fp32"]


def quantize_model(
    source: Path,
    *,
    calibration: Batches,
    base: StaticRecipe,
    tries: bool = True,
    error_budget: float | None = None,
    accept_slower: bool = False,
    seed: int = 0,
    timer: Timer | None = None,
) -> Quantized:
    """Return the best artifact that halve can make of an fp32 ONNX model without training.

    Args:
        source: The fp32 model, output `logits` or a single one.
        calibration: Batches like the requests to come; the last quarter only checks.
        base: Bits, and the first recipe.
        tries: Whether other recipes are tried too; else only `base`.
        error_budget: Largest relative RMSE of the logits; layers go back to fp32, the fewest seconds lost, until it
            is kept. None leaves every layer in integers that is faster so.
        accept_slower: Return an artifact that is no faster than fp32 here: for one that is made for its size.
        seed: Of the methods that draw.
        timer: Measures seconds; a recorded one makes a run repeatable to the byte.

    Raises:
        InvalidParameterError: If the calibration cannot be used, or the error budget is not positive.
        ModelError: If the model cannot be read or quantized, or the best artifact is wrong or slower here.
    """
    graph = Graph.load(source)
    if not graph.layers:
        raise ModelError(f"{source.name} must hold a Conv, Gemm or MatMul with constant weights. It holds none.")
    fit, check = split_batches(calibration)
    fp32 = graph.to_bytes()
    bench = _Bench(check=check, expected=run_logits(fp32, check), fp32=fp32, timer=timer)
    timings = layer_timings(graph, check, weight_bits=base.weight_bits, timer=timer)
    reasons = {} if accept_slower else _slower(timings)
    recipes = worth_trying(graph, base) if tries else (base,)
    plans = {recipe.name: carry_out(recipe, graph, batches=fit, seed=seed) for recipe in recipes}
    made = _best_of(plans, bench, timings=timings, reasons=reasons)
    if error_budget is not None and made.chosen.agreement.relative_rmse > error_budget:
        made = _within(error_budget, made, bench)
    refuse_if_useless(
        source.name,
        made.chosen.agreement,
        seconds=made.chosen.seconds,
        fp32_seconds=made.fp32_seconds,
        accept_slower=accept_slower,
    )
    return made


def _best_of(
    plans: Mapping[str, Plan], bench: _Bench, *, timings: Mapping[str, LayerTiming], reasons: Mapping[str, str]
) -> Quantized:
    artifacts = {name: plan.written(fp32_layers=frozenset(reasons)) for name, plan in plans.items()}
    tried, fp32_seconds = bench.tried(artifacts, fp32_layers=frozenset(reasons))
    chosen = _best(tried)
    return Quantized(
        content=artifacts[chosen.name],
        plan=plans[chosen.name],
        chosen=chosen,
        tried=tuple(tried),
        fp32_seconds=fp32_seconds,
        timings=timings,
        reasons=reasons,
    )


def _within(error_budget: float, made: Quantized, bench: _Bench) -> Quantized:
    """Return the artifact with the layers back in fp32 that the budget asks for.

    Errors of layers add up only nearly: where the whole is still above the budget, a smaller one is tried.
    """
    tried, budget, kept = list(made.tried), error_budget, frozenset(made.reasons)
    for _ in range(_MOST_TIGHTENINGS):
        sensitive = _too_sensitive(made.plan, bench, timings=made.timings, kept=kept, error_budget=budget)
        content = made.plan.written(fp32_layers=kept | set(sensitive))
        name = f"{made.chosen.name}, {len(sensitive)} sensitive layers in fp32"
        (chosen,), fp32_seconds = bench.tried({name: content}, fp32_layers=kept | set(sensitive))
        tried.append(chosen)
        if chosen.agreement.relative_rmse <= error_budget:
            break
        budget *= error_budget / chosen.agreement.relative_rmse
    else:
        raise ModelError(
            f"error_budget must be kept by leaving layers in fp32. {error_budget:g} is not: "
            f"{chosen.agreement.relative_rmse:.2g} is left with {len(sensitive)} layers in fp32."
        )
    return replace(
        made,
        content=content,
        chosen=chosen,
        tried=tuple(tried),
        fp32_seconds=fp32_seconds,
        reasons={**made.reasons, **sensitive},
    )


def split_batches(batches: Batches) -> tuple[Batches, Batches]:
    """Return the batches to calibrate on and those to check on; the same ones if there are fewer than 4 inputs."""
    if len(batches) >= 4:
        at = len(batches) - max(1, int(len(batches) * CHECK_SHARE))
        return batches[:at], batches[at:]
    rows = [_rows(batch) for batch in batches]
    if sum(rows) < 4:
        return batches, batches
    fit, check = [], []
    for batch, count in zip(batches, rows, strict=True):
        at = count - int(np.ceil(count * CHECK_SHARE))
        fit += [{name: array[:at] for name, array in batch.items()}] if at else []
        check.append({name: array[at:] for name, array in batch.items()})
    return fit, check


def _rows(batch: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(batch.values())))


def _best(tried: Sequence[Candidate]) -> Candidate:
    fastest = min(candidate.seconds for candidate in tried)
    fast = [candidate for candidate in tried if candidate.seconds <= ABOUT_AS_FAST * fastest]
    return min(fast, key=lambda candidate: candidate.agreement.relative_rmse)


def _slower(timings: Mapping[str, LayerTiming]) -> dict[str, str]:
    """Return the layers that integers slow down here, each with the two times."""
    return {
        name: f"slower in INT8 here: {timing.int8_seconds * 1e6:.1f} us, {timing.fp32_seconds * 1e6:.1f} us in fp32"
        for name, timing in timings.items()
        if timing.int8_is_slower
    }


def _too_sensitive(
    plan: Plan, bench: _Bench, *, timings: Mapping[str, LayerTiming], kept: frozenset[str], error_budget: float
) -> dict[str, str]:
    """Return the layers that must go back to fp32 to keep the budget, the fewest seconds lost, with the reason."""
    weights = {name: weight for name, weight in plan.weights.items() if name not in kept}
    errors = sensitivity(plan.graph, weights=weights, activations=plan.activations, batches=bench.check)
    options = {
        name: (
            Option(name="fp32", error=0.0, seconds=timings[name].fp32_seconds),
            Option(name="integers", error=errors[name], seconds=timings[name].int8_seconds),
        )
        for name in weights
    }
    choices = choose_layers(options, error_budget=error_budget)
    return {
        name: f"alone it moves the logits by {errors[name]:.2g} of their spread; the budget is {error_budget:g}"
        for name, choice in choices.items()
        if choice == "fp32"
    }


def refuse_if_useless(
    owner: str, found: Agreement, *, seconds: float, fp32_seconds: float, accept_slower: bool
) -> None:
    """Raise ModelError for an artifact that is wrong here, or no faster than fp32 and not made for its size."""
    if not found.relative_rmse < WRONG:
        raise ModelError(
            f"{owner} in integers is wrong here: its logits are off by {found.relative_rmse:.2g} of their spread. "
            "Give it more bits, more calibration inputs, or train it (QAT)."
        )
    if seconds >= fp32_seconds and not accept_slower:
        raise ModelError(
            f"{owner} in integers is no faster here: {seconds * 1e3:.2f} ms, {fp32_seconds * 1e3:.2f} ms in fp32. "
            "Ask for it all the same with accept_slower."
        )

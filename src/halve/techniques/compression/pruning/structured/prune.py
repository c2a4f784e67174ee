"""Structured pruning to a measured latency: groups, scores, table, plan, and the whole model timed until it fits.

    groups -> scores and latency table -> plan -> smaller module -> measured in its runtime -> plan again

The table holds layers alone; a model is more than its layers. So what the plan predicts and what the runtime
takes differ, and the budget given to the plan is corrected by the ratio of the two until the measured one fits. The
narrowest pruning that meets the target is not wanted: among those measured, the one that fits most closely is kept.

In several steps, each prunes a part of the way (equal factors) and `recover` trains in between. That is slower, and
better where much is taken away at once.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.depth import Block, remove_blocks
from halve.techniques.compression.pruning.structured.groups import Group, Inputs, opened, prunable_groups
from halve.techniques.compression.pruning.structured.importance import Importance, unit_scores
from halve.techniques.compression.pruning.structured.latency import LatencyTable, measure_latency
from halve.techniques.compression.pruning.structured.plan import Plan, plan_widths
from halve.techniques.compression.pruning.structured.rebuild import GroupChange, RebuildSpecification, rebuild
from halve.techniques.compression.pruning.structured.runtime import SecondsOf, Timer, seconds_in_onnxruntime
from halve.techniques.compression.pruning.structured.shrink import specification_of

if TYPE_CHECKING:
    from torch import nn

Progress = Callable[[str], AbstractContextManager[object]]
"""Opens one step of the work, described for people."""

MOST_ROUNDS = 6
"""Whole models measured per step."""

CLOSE_ENOUGH = 0.97
"""A measured ratio above this share of the target uses the budget up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """A smaller module, and what became of it.

    Args:
        module: In evaluation mode; its weights are the parent's until something recovers them.
        specification: Makes it again out of its parent.
        groups: Widths before and after.
        predicted_ratio: Of the layers' seconds, by the table.
        measured_ratio: Of the whole module's seconds in the runtime, over the parent's.
    """

    module: "nn.Module"
    specification: RebuildSpecification
    groups: tuple[GroupChange, ...]
    predicted_ratio: float
    measured_ratio: float


@dataclass(frozen=True, kw_only=True)
class Iterations:
    """Pruning in several steps.

    Args:
        steps: How many, at least 1.
        recover: Trains the module it is given, in place; called after every step but the last.
    """

    steps: int = 1
    recover: "Callable[[nn.Module], None] | None" = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidParameterError("steps", rule="at least 1", value=self.steps)


def prune(  # noqa: PLR0913 - all but the first three have defaults that fit.
    module: "nn.Module",
    inputs: Inputs,
    *,
    target_latency_ratio: float,
    importance: Importance = "taylor",
    loss: Any = None,
    seconds_of: SecondsOf | None = None,
    batch_size: int = 1,
    seed: int = 0,
    timer: Timer | None = None,
    progress: Progress | None = None,
    iterations: Iterations | None = None,
    removed_blocks: tuple[Block, ...] = (),
) -> Pruned:
    """Return a physically smaller module whose measured latency is at most the target's share of the parent's.

    Args:
        module: The parent; it stays as it is. Its forward takes the inputs in order and returns one tensor.
        inputs: Real inputs by name, at least one row; a few hundred for `taylor` and `activation`.
        target_latency_ratio: Above 0, below 1.
        importance: See `unit_scores`.
        loss: See `unit_scores`; None needs no labels.
        seconds_of: Measures whole modules in the runtime that will serve them; by default they are exported to ONNX
            and run in ONNX Runtime on one thread.
        batch_size: Rows of a request, at least 1.
        seed: Of what `taylor` draws.
        timer: Measures layers, and whole modules by the default `seconds_of`. A recorded one makes a run repeatable.
        progress: Opens each step of the work.
        iterations: Several steps with recovery in between; None is one step.
        removed_blocks: Taken out first; see `least_blocks`.

    Raises:
        InvalidParameterError: If a number is outside its range, or there is no input.
        ModelError: If the module cannot be run, traced or exported, nothing can be pruned, or the target is out of
            reach here.
        MissingExtraError: If a library is not installed.
    """
    if not 0 < target_latency_ratio < 1:
        raise InvalidParameterError("target_latency_ratio", rule="above 0, below 1", value=target_latency_ratio)
    work = _Work(
        parent=module,
        inputs=inputs,
        scores=lambda model, groups: unit_scores(model, groups, inputs, importance=importance, loss=loss, seed=seed),
        seconds_of=seconds_of or seconds_in_onnxruntime(inputs, batch_size=batch_size, timer=timer),
        step=progress or nullcontext,
    )
    plan = iterations or Iterations()
    start = remove_blocks(module, removed_blocks).eval()
    with work.step("finding what can be pruned"):
        groups = prunable_groups(start, inputs)
    if not groups:
        raise ModelError(f"{type(module).__name__} has no channels, neurons or heads that can be pruned.")
    with work.step("timing layers"):
        table = measure_latency(start, groups, inputs, batch_size=batch_size, timer=timer)
    found = Pruned(
        module=opened(start),
        specification=RebuildSpecification(removed_blocks=removed_blocks),
        groups=(),
        predicted_ratio=1.0,
        measured_ratio=1.0,
    )
    for number in range(1, plan.steps + 1):
        target = target_latency_ratio ** (number / plan.steps)
        found = _one_step(work, found, table, target=target)
        if number < plan.steps and plan.recover is not None:
            with work.step(f"recovering after step {number}"):
                plan.recover(found.module)
            found.module.eval()
    return found


@dataclass(frozen=True, kw_only=True)
class _Work:
    parent: "nn.Module"
    inputs: Inputs
    scores: Callable[["nn.Module", tuple[Group, ...]], Mapping[str, Any]]
    seconds_of: SecondsOf
    step: Progress


def _one_step(work: _Work, before: Pruned, table: LatencyTable, *, target: float) -> Pruned:
    """Return the pruning that fits the target most closely from below, out of a few that are measured."""
    groups = prunable_groups(before.module, work.inputs)
    with work.step("scoring units"):
        scores = work.scores(before.module, groups)
    fixed = {group.name: group.after for group in before.groups}
    share, best, lowest, seen = target, None, 1.0, set[tuple[int, ...]]()
    for number in range(MOST_ROUNDS):
        plan = _planned(groups, scores, table, share=share, fixed=fixed, is_first=not seen)
        if plan is None or tuple(plan.widths.values()) in seen:
            break
        seen.add(tuple(plan.widths.values()))
        with work.step(f"measuring the whole model, round {number + 1}"):
            tried = _carried_out(work, before, plan, groups)
        lowest = min(lowest, tried.measured_ratio)
        if tried.measured_ratio <= target and (best is None or tried.measured_ratio > best.measured_ratio):
            best = tried
        if CLOSE_ENOUGH * target <= tried.measured_ratio <= target:
            break
        # A little less than what would fit, so that noise does not ask for a round of its own.
        share = min(1.0, plan.predicted_ratio * 0.99 * target / tried.measured_ratio)
    if best is None:
        raise ModelError(f"no pruning reaches {target:g} of the parent's measured latency; the best took {lowest:.3f}.")
    return best


def _planned(
    groups: tuple[Group, ...],
    scores: Mapping[str, Any],
    table: LatencyTable,
    *,
    share: float,
    fixed: Mapping[str, int],
    is_first: bool,
) -> Plan | None:
    """Return the plan, or None if the table knows none for this share and others have been measured."""
    try:
        return plan_widths(groups, scores, table, target_ratio=share, fixed=fixed)
    except ModelError:
        if is_first:
            raise
        return None


def _carried_out(work: _Work, before: Pruned, plan: Plan, groups: tuple[Group, ...]) -> Pruned:
    step = specification_of(plan, groups)
    smaller = rebuild(before.module, step).eval()
    seconds = work.seconds_of({"parent": work.parent, "pruned": smaller})
    specification = before.specification.then(step.layers, step.groups)
    return Pruned(
        module=smaller,
        specification=specification,
        groups=specification.groups,
        predicted_ratio=plan.predicted_ratio,
        measured_ratio=seconds["pruned"] / seconds["parent"],
    )

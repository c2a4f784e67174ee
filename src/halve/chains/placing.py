"""Where a model may stand in a stack: first, behind a threshold, or in the place of the last."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from halve.core import Acceptance, Bench, Change, FloatArray, Model, Stack
from halve.techniques.inference.cascading import accepted, threshold_ladder

_CACHE, _MOST_BATCHED = "semantic_cache", 16


@dataclass(frozen=True, kw_only=True)
class Place:
    """One stack that has the model in it.

    Args:
        stack: With the model, not fitted.
        description: Of the change, for a rung.
        accept_share: Share of the search examples that the first model answers; None where none was chosen anew.
    """

    stack: Stack
    description: str
    accept_share: float | None = None

    def change(self, *, lever: str, before: Stack, reason: str) -> Change:
        """Return the change that a lever proposes with this place."""
        return Change(lever=lever, description=self.description, before=before, after=self.stack, reason=reason)


def asked_first(stack: Stack, bench: Bench, cheap: Model) -> Iterator[Place]:
    """Yield the stack with `cheap` in front of its last model, by share of the quality budget, cautious first.

    A model that is there already gets a new threshold; another first model makes room, except a semantic cache: it
    stays in front, and a new one goes in front of everything. Nothing without probabilities. Every drop is counted
    from the baseline, with what all other stages answer.
    """
    quick = bench.outcomes(cheap)
    if quick.probabilities is None:
        return
    most = min(_MOST_BATCHED, bench.service_curve(cheap, threads=1).max_batch_size)
    start = stack if cheap in stack.models else _with_room(stack, cheap)
    behind = 0 if cheap.engine == _CACHE else sum(model.engine == _CACHE for model in start.models)
    cheap_scores, dear_scores = _scores(start, bench, cheap, behind=behind)
    for point in threshold_ladder(
        cheap_probabilities=quick.probabilities,
        cheap_scores=cheap_scores,
        dear_scores=dear_scores,
        quality_drop_at_most=bench.workload.objective.quality_drop_at_most,
        upper_bound=lambda _, scores: bench.drop_upper_bound(scores),
    ):
        accept = Acceptance(rule=point.rule, threshold=point.threshold)
        yield Place(
            stack=start.with_first_stage(cheap, accept, max_batch_size=most, behind=behind),
            description=f"{cheap.name} first, {point.rule.replace('_', ' ')} >= {point.threshold:.3f}",
            accept_share=point.accept_share,
        )


def instead_of_last(stack: Stack, bench: Bench, made: Sequence[Model]) -> Iterator[Place]:
    """Yield the stack with each model in the place of the last, and where somebody stands in front, also without.

    The fastest of them is also tried with new thresholds in front: they were chosen for another last model, and what
    this one errs more must be made up for there.
    """
    last, several = stack.models[-1].name, len(stack.model_stages) > 1
    for model in made:
        yield Place(stack=stack.with_model(last, model), description=f"{last} replaced by {model.name}")
        if several:  # fast enough, it needs nobody in front, and errs less
            yield Place(stack=stack.with_last_only().with_model(last, model), description=f"{model.name} alone")
    if several and made:
        fastest = min(made, key=lambda model: _seconds_each(bench, model))
        replaced = stack.with_model(last, fastest)
        first = next((model for model in stack.models[:-1] if model.engine != _CACHE), stack.models[0])
        for place in asked_first(replaced, bench, first):
            if place.stack != replaced:
                yield Place(
                    stack=place.stack,
                    description=f"{last} replaced by {fastest.name}, {place.description}",
                    accept_share=place.accept_share,
                )


def _with_room(stack: Stack, cheap: Model) -> Stack:
    """Return the stack without the first models that a new one replaces."""
    if cheap.engine == _CACHE:
        return stack
    for model in stack.models[:-1]:
        if model.engine != _CACHE:
            stack = stack.without_model(model.name)
    return stack


def _scores(stack: Stack, bench: Bench, cheap: Model, *, behind: int) -> tuple[FloatArray, FloatArray]:
    """Return the scores of the whole chain if `cheap` answered everything that reaches it, and if it answered nothing.

    Stages in front of it answer what they accept either way; those after it, what they would.
    """
    stages = [stage for stage in stack.model_stages if stage.model != cheap.name]
    place = next((at for at, model in enumerate(stack.models) if model == cheap), behind)
    all_cheap, none_cheap = bench.outcomes(cheap).scores, bench.outcomes(stack.models[-1]).scores
    for at in range(len(stages) - 2, -1, -1):
        outcomes, accept = bench.outcomes(stack.model(str(stages[at].model))), stages[at].accept
        if accept is None or outcomes.probabilities is None:
            continue
        stands = accepted(outcomes.probabilities, rule=accept.rule, threshold=accept.threshold)
        none_cheap = np.where(stands, outcomes.scores, none_cheap)
        if at < place:
            all_cheap = np.where(stands, outcomes.scores, all_cheap)
    return all_cheap, none_cheap


def _seconds_each(bench: Bench, model: Model) -> float:
    """Return the seconds of one answer in the largest batch, on one thread."""
    curve = bench.service_curve(model, threads=1)
    return float(curve.median_seconds[-1]) / curve.max_batch_size

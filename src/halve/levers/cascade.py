"""Cascade: a cheaper answerer goes first; its answer stands when it is sure enough."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from halve.core import Acceptance, Accepts, BatchPolicy, Bench, Change, Deployment, Model, Prediction, Stack, Stage
from halve.techniques.inference.cascading import ThresholdPoint, accepted, choose_threshold

SHARES_OF_THE_BUDGET = (0.15, 0.3, 0.5, 0.75, 1.0)
"""How much of the promised drop a proposal may spend, as its upper bound on the search split. A threshold that was
chosen there looks better there than it is: cautious ones stand ready for when a bold one does not pass the
certificate, and win where a fleet cannot get smaller anyway."""

_MOST_BATCHED = 16


class Cascade:
    """Proposes a first stage for each cheaper answerer, or new thresholds for the cascade that is there."""

    name = "cascade"

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield changes by answerer and by share of the quality budget, cautious first."""
        # What another lever made of the dear model is an answerer too: too wrong to replace it, it may still go first.
        by_cost = [model.name for model in bench.answerers()]
        dear = by_cost.index(stack.models[-1].name) if stack.models[-1].name in by_cost else len(by_cost)
        for cheap in [stack.models[0]] if len(stack.model_stages) > 1 else bench.answerers()[:dear]:
            seen: set[tuple[str, float]] = set()
            for share in SHARES_OF_THE_BUDGET:
                point = self._threshold(stack, bench, cheap, share)
                if point is not None and (point.rule, point.threshold) not in seen:
                    seen.add((point.rule, point.threshold))
                    yield self._change(stack, bench, cheap, point)

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no cascade was proposed."""
        if not bench.answerers() and len(stack.model_stages) == 1:
            return "no cheaper answerer was brought, and none was made yet"
        margin = bench.workload.objective.quality_drop_at_most
        return f"no threshold keeps the drop below {margin:g} on the search split"

    @staticmethod
    def _threshold(stack: Stack, bench: Bench, cheap: Model, share: float) -> ThresholdPoint | None:
        quick, dear = bench.outcomes(cheap), bench.outcomes(stack.models[-1])
        if quick.probabilities is None:
            return None
        # Every drop is counted from the baseline, also when the dear model is itself a cheaper copy of it.
        return choose_threshold(
            cheap_probabilities=quick.probabilities,
            cheap_scores=quick.scores,
            dear_scores=dear.scores,
            quality_drop_at_most=bench.workload.objective.quality_drop_at_most * share,
            upper_bound=lambda _, scores: bench.drop_upper_bound(scores),
        )

    def _change(self, stack: Stack, bench: Bench, cheap: Model, point: ThresholdPoint) -> Change:
        accept = Acceptance(rule=point.rule, threshold=point.threshold)
        return Change(
            lever=self.name,
            description=f"{cheap.name} first, {point.rule.replace('_', ' ')} >= {point.threshold:.3f}",
            before=stack,
            after=_with_first_stage(stack, bench, cheap, accept),
            reason=f"{cheap.name} is sure enough for {point.accept_share:.1%} of requests",
        )


def _with_first_stage(stack: Stack, bench: Bench, cheap: Model, accept: Acceptance) -> Stack:
    stage = Stage(kind="model", model=cheap.name, accept=accept)
    if cheap in stack.models:
        return replace(stack, stages=tuple(stage if old.model == cheap.name else old for old in stack.stages))
    most = min(_MOST_BATCHED, bench.service_curve(cheap, threads=1).max_batch_size)
    kind = stack.deployments[-1].instance_type
    deployment = Deployment(model=cheap.name, instance_type=kind, batch=BatchPolicy(max_batch_size=most))
    at = len(stack.stages) - len(stack.model_stages)  # behind the cache, before the models
    return replace(
        stack,
        models=(cheap, *stack.models),
        stages=(*stack.stages[:at], stage, *stack.stages[at:]),
        deployments=(deployment, *stack.deployments),
    )


def accepted_mask(probabilities: NDArray[np.float32], accept: Acceptance) -> NDArray[np.bool_]:
    """Return whether each answer stands."""
    return accepted(probabilities, rule=accept.rule, threshold=accept.threshold)


def serve_acceptance(accept: Acceptance) -> Accepts:
    """Return the acceptance that the gateway asks for this stage."""

    def accepts(prediction: Prediction) -> NDArray[np.bool_]:
        if prediction.probabilities is None:
            return np.zeros(len(prediction), dtype=np.bool_)
        return accepted_mask(prediction.probabilities, accept)

    return accepts

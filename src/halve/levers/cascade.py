"""Cascade: a cheaper answerer goes first; its answer stands when it is sure enough."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from halve import chains
from halve.core import Acceptance, Accepts, Bench, Change, Model, Prediction, Stack
from halve.techniques.inference.cascading import accepted


class Cascade:
    """Proposes a first stage for each cheaper answerer; for a cascade that is there, new thresholds too."""

    name = "cascade"

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield changes by answerer and by share of the quality budget, cautious first."""
        for cheap in self._candidates(stack, bench):
            for place in chains.asked_first(stack, bench, cheap):
                yield place.change(
                    lever=self.name,
                    before=stack,
                    reason=f"{cheap.name} is sure enough for {place.accept_share:.1%} of requests",
                )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no cascade was proposed."""
        if not bench.answerers() and len(stack.model_stages) == 1:
            return "no cheaper answerer was brought, and none was made yet"
        margin = bench.workload.objective.quality_drop_at_most
        return f"no threshold keeps the drop below {margin:g} on the search split"

    @staticmethod
    def _candidates(stack: Stack, bench: Bench) -> list[Model]:
        """Return the models in front that are there, and the answerers cheaper than the last that none outdoes."""
        # What another lever made of the dear model is an answerer too: too wrong to replace it, it may still go first.
        known = list(bench.answerers())
        names = [model.name for model in known]
        cheaper = known[: names.index(stack.models[-1].name)] if stack.models[-1].name in names else known
        best, front = -1.0, []
        for model in cheaper:  # by rising cost: one that answers no better than a cheaper one is outdone
            quality = bench.outcomes(model).quality
            if quality > best and model not in stack.models:
                front.append(model)
            best = max(best, quality)
        return [*stack.models[:-1], *front]


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

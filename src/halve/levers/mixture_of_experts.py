"""Mixture of experts: dense feed-forwards cut into experts, of which a token visits some. Wall-clock decides."""

from collections.abc import Iterable
from functools import partial

from halve import chains
from halve.core import Bench, Change, Stack

EXPERTS, ACTIVE, SHARED = 8, 2, 0.328
"""Per feed-forward, and the share of neurons that every token visits: with the router half of the operations."""


class MixtureOfExperts:
    """Proposes the last model as a mixture of experts, in fp32 and in integers, if that is faster here at all."""

    name = "mixture_of_experts"

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield one change per model made; nothing without training data, or if the model is no torch module."""
        if bench.workload.training is None or bench.baseline.engine != "torch":
            return
        maker = chains.Maker(bench=bench, technique=self.name, problems=self._problems)
        lesson = chains.Lesson.of_bench(bench, bench.baseline)
        name, recipe = f"{bench.baseline.name}-experts-{ACTIVE}-of-{EXPERTS}", chains.recovery_recipe(lesson)
        made = maker.make(
            name,
            parent=bench.baseline,
            reads=bench.baseline,
            parameters={"experts": EXPERTS, "active": ACTIVE, "shared": SHARED, **chains.shown(recipe)},
            build=partial(
                chains.write_mixture,
                lesson=lesson,
                experts=EXPERTS,
                active=ACTIVE,
                shared_neurons_share=SHARED,
                recipe=recipe,
                name=name,
            ),
        )
        for place in chains.instead_of_last(stack, bench, made):
            yield place.change(
                lever=self.name,
                before=stack,
                reason=f"a token visits {ACTIVE} of {EXPERTS} experts; memory stays the same",
            )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why nothing was converted, with the two times where it was measured."""
        if bench.workload.training is None:
            return "not tried: the config names no training data"
        if bench.baseline.engine != "torch":
            return f"not tried: {bench.baseline.name} is a file, and only a torch module can be converted"
        return "; ".join(self._problems.values()) or "nothing could be converted"

"""Pruning: the model in service with fewer channels, as fast as was asked for, taught by what it was."""

from collections.abc import Iterable, Sequence
from functools import partial

from halve import chains
from halve.core import Bench, Change, Stack

RATIOS = (0.5, 0.3)
"""Seconds of the pruned model over the parent's, both in onnxruntime; mild first. A harder one is only made if the
one before kept the promise on the search split."""


class Pruning:
    """Proposes the last model pruned to each ratio, in fp32 and in integers: prune, distil, quantize in one change."""

    name = "pruning"

    def __init__(self, ratios: Sequence[float] = RATIOS) -> None:
        self._ratios = ratios
        self._problems: dict[str, str] = {}

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield changes from mild to hard; nothing without training data, or if the model is no torch module."""
        if bench.workload.training is None or bench.baseline.engine != "torch":
            return
        maker = chains.Maker(bench=bench, technique=self.name, problems=self._problems)
        lesson = chains.Lesson.of_bench(bench, bench.baseline)
        for ratio in self._ratios:
            name = f"{bench.baseline.name}-pruned-{round(100 * ratio)}"
            recipe = chains.recovery_recipe(lesson)
            build = partial(chains.write_pruned, lesson=lesson, target_latency_ratio=ratio, recipe=recipe, name=name)
            made = maker.make(
                name,
                parent=bench.baseline,
                reads=bench.baseline,
                parameters={"target_latency_ratio": ratio, **chains.shown(recipe)},
                build=build,
            )
            for place in chains.instead_of_last(stack, bench, made):
                yield place.change(
                    lever=self.name,
                    before=stack,
                    reason=f"cut to {ratio:.0%} of its seconds, then taught by {bench.baseline.name}",
                )
            drops = [bench.drop_upper_bound(bench.outcomes(model).scores) for model in made]
            if not drops or min(drops) > bench.workload.objective.quality_drop_at_most:
                return

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why nothing was pruned."""
        if bench.workload.training is None:
            return "not tried: the config names no training data"
        if bench.baseline.engine != "torch":
            return f"not tried: {bench.baseline.name} is a file, and only a torch module can be pruned"
        return "; ".join(self._problems.values()) or "nothing could be pruned"

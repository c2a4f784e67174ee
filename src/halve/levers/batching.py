"""Batching: how many requests a replica answers at once, and how long it waits for them."""

from collections.abc import Iterable
from dataclasses import replace

from halve.core import BatchPolicy, Bench, Change, Stack
from halve.techniques.infrastructure.batching import candidate_policies


class Batching:
    """Proposes, model by model, the batch policy with the cheapest fitted fleet."""

    name = "batching"

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield one change: the policies found by improving one model after the other."""
        best, cost = stack, bench.usd_per_hour(stack)
        for deployment in stack.deployments:
            for policy in self._policies(stack, bench, deployment.model):
                after = bench.fit(best.with_deployment(replace(best.deployment(deployment.model), batch=policy)))
                # Ties go to the earlier policy: smaller batches, shorter waits.
                if after is not None and bench.usd_per_hour(after) < cost:
                    best, cost = after, bench.usd_per_hour(after)
        if best != stack:
            yield Change(
                lever=self.name,
                description=self._describe(best),
                before=stack,
                after=best,
                reason="seconds per request fall as batches grow, within the latency promise",
            )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no policy was proposed."""
        gains = []
        for deployment in stack.deployments:
            curve = bench.service_curve(stack.model(deployment.model), threads=deployment.threads)
            alone, full = curve.median_seconds[0], curve.median_seconds[-1] / curve.max_batch_size
            gains.append(f"{deployment.model} {alone / full:.2f}x at {curve.max_batch_size}")
        return f"no batch policy needs fewer instances (throughput of a full batch: {', '.join(gains)})"

    def _policies(self, stack: Stack, bench: Bench, model_name: str) -> list[BatchPolicy]:
        curve = bench.service_curve(stack.model(model_name), threads=stack.deployment(model_name).threads)
        candidates = candidate_policies(
            batch_sizes=curve.batch_sizes,
            seconds=curve.median_seconds.tolist(),
            p99_at_most_seconds=bench.workload.objective.latency_p99_seconds,
        )
        return [
            BatchPolicy(max_batch_size=found.max_batch_size, max_wait_seconds=found.max_wait_seconds)
            for found in candidates
        ]

    @staticmethod
    def _describe(stack: Stack) -> str:
        parts = [
            f"{deployment.model} up to {deployment.batch.max_batch_size}"
            + (f" after {deployment.batch.max_wait_seconds * 1e3:.1f} ms" if deployment.batch.max_wait_seconds else "")
            for deployment in stack.deployments
        ]
        return "batches: " + ", ".join(parts)

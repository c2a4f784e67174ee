"""Right-sizing: which instance type, how many threads per replica, and how many replicas keep the promise."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from halve.core import Bench, Change, InstanceType, Stack


class RightSizing:
    """Proposes every allowed instance type with the threads per replica that make it cheapest."""

    name = "right_sizing"

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield the cheapest fitted fleet of each instance type, cheapest first."""
        fitted = (self._cheapest(stack, bench, kind) for kind in bench.instance_types())
        found = [(cost, kind, after) for cost, kind, after in fitted if after is not None and after != stack]
        for _, kind, after in sorted(found, key=lambda item: (item[0], item[1].name)):
            threads = ", ".join(f"{deployment.model} on {deployment.threads}" for deployment in after.deployments)
            yield Change(
                lever=self.name,
                description=f"{kind.name}, threads: {threads}",
                before=stack,
                after=after,
                reason=f"{kind.vcpus} vCPUs for ${kind.usd_per_hour:g} an hour",
            )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no fleet was proposed."""
        kinds = ", ".join(kind.name for kind in bench.instance_types()) or "none"
        return f"no other fleet of the allowed instance types ({kinds}) keeps the latency promise"

    def _cheapest(self, stack: Stack, bench: Bench, kind: InstanceType) -> tuple[float, InstanceType, Stack | None]:
        threads = [count for count in bench.threads_options() if count <= kind.vcpus]
        best: tuple[float, InstanceType, Stack | None] = (float("inf"), kind, None)
        for choice in product(threads, repeat=len(stack.deployments)):
            deployments = tuple(
                replace(old, instance_type=kind.name, threads=count)
                for old, count in zip(stack.deployments, choice, strict=True)
            )
            gateway = replace(stack.gateway, instance_type=kind.name)
            after = bench.fit(replace(stack, deployments=deployments, gateway=gateway))
            if after is not None and bench.usd_per_hour(after) < best[0]:
                best = (bench.usd_per_hour(after), kind, after)
        return best

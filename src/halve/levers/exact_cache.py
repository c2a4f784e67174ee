"""Exact cache: an identical request gets the stored answer. Earns only from repeats seen or declared."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from halve.core import AnswerCache, Bench, CachedAnswer, Change, FloatArray, IntArray, Payload, Stack, Stage
from halve.techniques.inference.caching import ExactCache, exact_key, hit_mask


class ExactCaching:
    """Proposes a cache in front of the chain, if the traffic repeats itself at all."""

    name = "exact_cache"

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield one change, unless no request repeats or there is a cache already."""
        stage = Stage(kind="exact_cache")
        share = self._hit_share(bench, stage)
        if stack.cache_stage is not None or share == 0:
            return
        traffic = bench.workload.traffic
        yield Change(
            lever=self.name,
            description=f"{stage.capacity_entries:,} entries, least recently used leave first",
            before=stack,
            after=replace(stack, stages=(stage, *stack.stages)),
            reason=f"{share:.1%} of requests repeat an earlier one ({traffic.repeats})",
        )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no cache was proposed."""
        traffic = bench.workload.traffic
        if traffic.repeats == "none":
            return "not enabled: no repeats were observed or declared, so it would hit 0.0 % of requests"
        share = self._hit_share(bench, Stage(kind="exact_cache"))
        return f"not enabled: it would hit {share:.1%} of requests (repeats {traffic.repeats})"

    @staticmethod
    def _hit_share(bench: Bench, stage: Stage) -> float:
        traffic = bench.workload.traffic
        return float(np.mean(cache_hits(traffic.content, traffic.arrival_seconds, stage)))


def cache_hits(content: IntArray, arrival_seconds: FloatArray, stage: Stage) -> NDArray[np.bool_]:
    """Return whether each arrival hits the cache of this stage."""
    return hit_mask(content, arrival_seconds, capacity_entries=stage.capacity_entries, ttl_seconds=stage.ttl_seconds)


def serve_cache(stage: Stage) -> AnswerCache:
    """Return the cache that the gateway asks for this stage."""
    cache: ExactCache[CachedAnswer] = ExactCache(capacity_entries=stage.capacity_entries, ttl_seconds=stage.ttl_seconds)
    return cache


def cache_key(payload: Payload) -> bytes:
    """Return the key under which a payload's answer is stored."""
    return exact_key(payload)

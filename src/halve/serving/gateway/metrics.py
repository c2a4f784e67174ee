"""What the gateway counts, in Prometheus text form, in a registry of its own."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, final

from halve.core import EarlyWatch
from halve.errors import MissingExtraError

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

GATEWAY = "gateway"
"""Name of the HTTP server's own station in vCPU seconds and cost."""

SECONDS_BUCKETS = (
    0.0005, 0.001, 0.002, 0.004, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30,
)  # fmt: skip
SIZE_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)


@final
class StationMetrics:
    """The counters of one model, bound once so that counting is cheap. Thread-safe."""

    def __init__(
        self, *, batch_size: "Histogram", wait: "Histogram", vcpu_seconds: "Counter", usd: "Counter",
        usd_per_vcpu_second: float,
    ) -> None:  # fmt: skip
        self._batch_size, self._wait, self._vcpu_seconds, self._usd = batch_size, wait, vcpu_seconds, usd
        self._usd_per_vcpu_second = usd_per_vcpu_second

    def ran(self, *, waited_seconds: Sequence[float], vcpu_seconds: float) -> None:
        """Count one batch: how long each item waited, and the vCPU seconds it kept busy."""
        self._batch_size.observe(len(waited_seconds))
        for seconds in waited_seconds:
            self._wait.observe(seconds)
        self.used(vcpu_seconds)

    def used(self, vcpu_seconds: float) -> None:
        """Count vCPU seconds, and what they cost."""
        self._vcpu_seconds.inc(vcpu_seconds)
        self._usd.inc(vcpu_seconds * self._usd_per_vcpu_second)


@final
class Metrics:
    """All counters of one gateway.

    vCPU seconds of a model are the wall seconds of its batches times the vCPUs that its replica owns: a
    replica that waits on memory still keeps them busy. Those of the gateway are the processor time of the
    thread that runs the event loop.

    Args:
        prices: USD per vCPU second of each station: the models by name, and `gateway`.
        stages: Names that answers may bear.
        in_flight: Returns how many items are being answered.
    """

    def __init__(self, *, prices: Mapping[str, float], stages: Sequence[str], in_flight: Callable[[], int]) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError:
            raise MissingExtraError("serving", package="prometheus-client", extra="serve") from None
        registry = self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS_BUCKETS) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self._requests = counter(
            "halve_requests", "Requests by the deepest stage asked, and status.", "stage", "status"
        )
        answers = counter("halve_answers", "Items by the stage that answered.", "stage")
        self._answers = {stage: answers.labels(stage) for stage in stages}
        Gauge("halve_in_flight_items", "Items being answered.", registry=registry).set_function(in_flight)
        self._latency = histogram("halve_request_latency_seconds", "From the whole request read to its answer made.")
        self._hits = counter("halve_cache_hits", "Items answered from the cache.")
        self._misses = counter("halve_cache_misses", "Items that the cache did not know.")
        vcpu_seconds = counter("halve_vcpu_seconds", "Busy vCPU seconds.", "station")
        usd = counter("halve_cost_usd", "Busy vCPU seconds times price; idle capacity not included.", "station")
        sizes = histogram("halve_batch_size", "Items per batch.", "model", buckets=SIZE_BUCKETS)
        waits = histogram("halve_queue_wait_seconds", "From joining a model's queue to its batch.", "model")
        self._stations = {
            name: StationMetrics(
                batch_size=sizes.labels(name),
                wait=waits.labels(name),
                vcpu_seconds=vcpu_seconds.labels(name),
                usd=usd.labels(name),
                usd_per_vcpu_second=price,
            )
            for name, price in prices.items()
        }
        self._outcomes: dict[tuple[str, int], Counter] = {}
        self._gateway_seconds = 0.0

    def station(self, name: str) -> StationMetrics:
        """Return the counters of one model."""
        return self._stations[name]

    def answered(self, stage: str) -> None:
        """Count one item."""
        self._answers[stage].inc()

    def looked_up(self, *, hit: bool) -> None:
        """Count one question to the cache."""
        (self._hits if hit else self._misses).inc()

    def watched(self, watch: EarlyWatch) -> Callable[[bool], None]:
        """Show a watch's state, and return what counts one comparison."""
        from prometheus_client import Counter, Gauge

        registry = self._registry
        calls = Counter("halve_shadow_calls", "Early answers asked twice.", ["same"], registry=registry)
        same, other = calls.labels("yes"), calls.labels("no")
        place = Gauge("halve_watch_tightened", "How many times thresholds were tightened.", registry=registry)
        place.set_function(lambda: watch.place)
        bound = Gauge("halve_watch_disagreement_upper_bound", "Of answers unlike the last model's.", registry=registry)
        bound.set_function(lambda: watch.upper_bound)
        return lambda is_same: (same if is_same else other).inc()

    def finished(self, *, stage: str, status: int, seconds: float) -> None:
        """Count one inference request."""
        outcome = self._outcomes.get((stage, status))
        if outcome is None:
            outcome = self._outcomes[stage, status] = self._requests.labels(stage, str(status))
        outcome.inc()
        self._latency.observe(seconds)

    def render(self) -> bytes:
        """Return everything as text. Called from the event loop's thread, whose processor time it adds."""
        from prometheus_client import generate_latest

        now = time.thread_time()
        self._stations[GATEWAY].used(max(0.0, now - self._gateway_seconds))
        self._gateway_seconds = now
        return generate_latest(self._registry)

"""What the server in front of a chat endpoint counts, in Prometheus text form."""

from typing import Literal, final

from halve.errors import MissingExtraError

Outcome = Literal["exact", "semantic", "merged", "miss", "bypass", "passed"]
"""How a request was answered: from the cache (identical, or near); with another in flight; by the server behind, as
the cache had nothing, as it may not answer such a request, or as it is none for chat."""

OUTCOMES: tuple[Outcome, ...] = ("exact", "semantic", "merged", "miss", "bypass", "passed")
SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


@final
class ChatMetrics:
    """All counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Histogram
        except ImportError:
            raise MissingExtraError("serving", package="prometheus-client", extra="serve") from None
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "halve_chat_requests", "Requests by how they were answered, and status.", ["outcome", "status"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "halve_chat_seconds", "From the whole request read to the end of its reply.", ["outcome"],
            registry=registry, buckets=SECONDS_BUCKETS,
        )  # fmt: skip
        self._lookup = Histogram(
            "halve_chat_lookup_seconds", "Encoder, index and decision.", registry=registry, buckets=SECONDS_BUCKETS
        )
        self._saved = Counter("halve_chat_saved_usd", "Of hits and merged requests, as told.", registry=registry)
        for outcome in OUTCOMES:
            self._seconds.labels(outcome)

    def finished(self, outcome: Outcome, *, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(outcome, str(status)).inc()
        self._seconds.labels(outcome).observe(seconds)

    def looked_up(self, seconds: float) -> None:
        """Count the time of one look-up."""
        self._lookup.observe(seconds)

    def saved(self, usd: float) -> None:
        """Count what a call that was not made would have cost."""
        self._saved.inc(usd)

    def render(self) -> bytes:
        """Return everything as text."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

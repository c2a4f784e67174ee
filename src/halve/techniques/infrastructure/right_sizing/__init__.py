"""How many replicas: the rule of thumb for static fleets, and the cheapest fleet that keeps a latency promise."""

from halve.techniques.infrastructure.right_sizing.demand import offered_load, peak_replicas
from halve.techniques.infrastructure.right_sizing.search import Load, fewest_replicas

__all__ = ["Load", "fewest_replicas", "offered_load", "peak_replicas"]

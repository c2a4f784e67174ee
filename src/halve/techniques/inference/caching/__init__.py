"""An identical request gets the stored answer. Keys, a bounded store, and its replay on a trace; knows no models."""

from halve.techniques.inference.caching.cache import CacheCounts, ExactCache
from halve.techniques.inference.caching.keys import exact_key
from halve.techniques.inference.caching.replay import hit_mask

__all__ = ["CacheCounts", "ExactCache", "exact_key", "hit_mask"]

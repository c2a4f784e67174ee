"""Streams, contestants and figures of `benchmarks.semantic_cache`."""

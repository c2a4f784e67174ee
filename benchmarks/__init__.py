"""Benchmarks against other tools: `python -m benchmarks.NAME [--quick] --json FILE`. Nothing here gates CI."""

"""Structured pruning: whole channels, neurons, heads and blocks, chosen by measured latency."""

"""Peers that train or search: each job is one process in the peer's own environment, and its answer is kept."""

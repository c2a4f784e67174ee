"""Recorded answers of real models, our chains on them, and the peers."""

"""Benchmarks are run from the repository's root, so `benchmarks` and `examples` are imported from there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

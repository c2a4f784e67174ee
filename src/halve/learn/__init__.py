"""Worked derivations: a technique's mathematics step by step, with the reader's numbers, computed by the technique.

Add a topic: one module with `derive(**numbers) -> Derivation`, and one entry in `topics.TOPICS`.
"""

from halve.learn.derivation import Derivation, Step, as_text
from halve.learn.topics import TOPICS, Number, Topic, explain

__all__ = ["TOPICS", "Derivation", "Number", "Step", "Topic", "as_text", "explain"]

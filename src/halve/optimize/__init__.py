"""The ladder, the joint search and the run store. Knows core only; everything that measures is passed in."""

from halve.optimize.ladder import Trial, climb
from halve.optimize.optimizer import Optimizer, Outcome
from halve.optimize.sequence import certification_sequence
from halve.optimize.store import RunStore

__all__ = ["Optimizer", "Outcome", "RunStore", "Trial", "certification_sequence", "climb"]

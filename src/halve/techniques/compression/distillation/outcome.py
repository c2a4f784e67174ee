"""What training is asked to stop at, and what it did."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.techniques.compression.distillation.batching import Inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """How good is good enough, on rows that are not trained on.

    Training stops once the upper bound of the gap to the teacher is at most the target. The data are looked at after
    every epoch, so this is a rule for stopping and nothing more: a bound that holds for one look does not hold for
    the best of many. What is promised must be certified on other data.

    Args:
        inputs: Held-out inputs.
        scores: Takes the student's logits (rows, classes), returns what the bound needs of each row, float64 (rows,).
        upper_bound: Takes the scores, returns the upper confidence bound of the gap.
        target: The gap that is near enough.
    """

    inputs: Inputs
    scores: Callable[[NDArray[np.float32]], NDArray[np.float64]]
    upper_bound: Callable[[NDArray[np.float64]], float]
    target: float


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the inputs did.

    Args:
        loss: Mean over its updates.
        gap_upper_bound: Of the check; None without one.
    """

    loss: float
    gap_upper_bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What training did.

    Args:
        history: One entry per epoch that was run.
        best_epoch: Whose weights the student has, from 0: of the smallest bound, else the last.
        gap_upper_bound: Of that epoch; None without a check.
        seconds: Spent training, those before a kill included as far as they were kept.
        stopped_early: Whether the target was reached before the last epoch.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    gap_upper_bound: float | None
    seconds: float
    stopped_early: bool

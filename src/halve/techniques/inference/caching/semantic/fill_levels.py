"""Which threshold holds while a partition has fewer entries than those that a proof was about."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from halve.techniques.inference.caching.semantic.policy import FillLevel

Places = NDArray[np.int64]

FILL_SIZES = tuple(2**power for power in range(21))
"""Entries of a partition at which a threshold of its own is proved: 1 to a million."""

FEWEST_PER_LEVEL = 20
"""Questions of the calibration with so many before them, below which nothing is said of a size."""

MOST_PER_LEVEL = 5_000
"""Questions that prove it, the latest: bounds the time."""


def fill_levels(
    earlier: Places, calibration: Places, threshold: Callable[[Places, int], float], *, full: float
) -> tuple[FillLevel, ...]:
    """Return thresholds for partitions that hold less than those of a log did.

    At each size, one is proved on the calibration's questions as they would have been answered from the latest so many
    of their partition, each alone at the confidence of the whole. Between two sizes the stricter of both holds: fuller
    is not always better. Neighbouring levels with the same threshold become one.

    Args:
        earlier: int64 (n,): how many questions of its partition came before each question of the log.
        calibration: int64 (m,): places of the calibration's questions in the log, m >= 1.
        threshold: Proves one on the questions at some of these places, with so many stored; above 1 if none is proved.
        full: The threshold that was proved on all of them as they were, in (0, 1].
    """
    before = earlier[calibration]
    usual = {size: float(np.median(before[before >= size])) for size in FILL_SIZES if np.any(before >= size)}
    reached = [size for size in usual if int(np.sum(before >= size)) >= FEWEST_PER_LEVEL]
    sizes = [size for size in reached if usual[size] >= 2 * size]  # nearer to the log's own, that is proof enough
    if not sizes:
        return ()
    proved = [threshold(calibration[before >= size][-MOST_PER_LEVEL:], size) for size in sizes]
    ends = [*sizes[1:], int(usual[sizes[-1]])]
    thresholds = [min(max(both), 1.0) for both in pairwise([*proved, full])]
    return tuple(
        FillLevel(below=below, threshold=strict)
        for below, strict, later in zip(ends, thresholds, [*thresholds[1:], full], strict=True)
        if strict != later
    )

"""Which stacks the certificate tests, and in which order: least to most aggressive, each cheaper than the last."""

from collections.abc import Callable, Sequence

from halve.core import Measurement
from halve.optimize.ladder import Trial


def certification_sequence(
    passed: Sequence[Trial], *, drop_upper_bound: Callable[[Measurement], float], longest: int = 8
) -> tuple[Trial, ...]:
    """Return the trials to certify, by rising drop bound on the search split and falling cost.

    Fixed-sequence testing spends no error on going on after a pass, so the order and the members may be
    chosen freely on the search split; the certify split must not have been looked at. A trial that is not
    cheaper than one less aggressive than itself is left out: passing it would win nothing. If more than
    `longest` remain, they are thinned evenly; the cheapest always stays.

    Source: Maurer, Hothorn & Lehmacher 1995; Angelopoulos et al. 2021, arXiv:2110.01052 (learn then test).
    """
    ordered = sorted(
        enumerate(passed), key=lambda item: (drop_upper_bound(item[1].measurement), _cost(item[1]), item[0])
    )
    front: list[Trial] = []
    for _, trial in ordered:
        if not front or _cost(trial) < _cost(front[-1]):
            front.append(trial)
    if len(front) <= longest:
        return tuple(front)
    step = (len(front) - 1) / (longest - 1)
    return tuple(front[round(index * step)] for index in range(longest))


def _cost(trial: Trial) -> float:
    return trial.measurement.usd_per_1k_requests

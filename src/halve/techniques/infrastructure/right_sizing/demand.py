"""How many replicas a load keeps busy, without any queue in the picture."""

import math

from halve.errors import InvalidParameterError


def offered_load(*, requests_per_second: float, seconds_per_request: float) -> float:
    """Return the mean number of replicas that the load keeps busy (in erlangs).

    A = rate * seconds. This is Little's law, L = rate * W, applied to the replicas alone: requests in service
    = rate * seconds in service. A fleet of fewer than A replicas cannot keep up, whatever its queue.

    Source: Little 1961, "A Proof for the Queuing Formula: L = lambda W", Operations Research 9(3).

    Args:
        requests_per_second: Mean rate, finite, >= 0.
        seconds_per_request: Replica seconds of one request, finite, >= 0; with batches of b, s(b) / b.

    Raises:
        InvalidParameterError: If a value is negative, infinite or NaN.
    """
    _check_rate("requests_per_second", requests_per_second)
    _check_rate("seconds_per_request", seconds_per_request)
    return requests_per_second * seconds_per_request


def peak_replicas(*, peak_requests_per_second: float, seconds_per_request: float, target_utilization: float) -> int:
    """Return the replicas of a static fleet sized for its peak: ceil(rate * seconds / utilization), at least 1.

    The common rule of thumb. It knows nothing of queues, so it promises no latency.

    Args:
        peak_requests_per_second: Rate of the busiest moment, finite, >= 0.
        seconds_per_request: Replica seconds of one request, finite, >= 0.
        target_utilization: Busy share that the peak may reach, (0, 1].

    Raises:
        InvalidParameterError: If a value is outside its range.
    """
    _check_rate("peak_requests_per_second", peak_requests_per_second)
    if not 0 < target_utilization <= 1:
        raise InvalidParameterError("target_utilization", rule="in (0, 1]", value=target_utilization)
    load = offered_load(requests_per_second=peak_requests_per_second, seconds_per_request=seconds_per_request)
    # 7 erlangs at 70 % are 10 replicas, but 7 / 0.7 is a rounding error above 10.
    return max(1, math.ceil(load / target_utilization * (1 - 1e-12)))


def _check_rate(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise InvalidParameterError(name, rule="finite and at least 0", value=value)

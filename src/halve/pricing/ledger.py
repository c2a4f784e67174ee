"""The bill of a fleet as named lines that sum to what the fleet costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from halve.core import LedgerLine
from halve.errors import InvalidParameterError
from halve.pricing.catalogue import Catalogue
from halve.pricing.fleet import Demand, pack
from halve.units import SECONDS_PER_HOUR

IDLE_CAPACITY = "idle capacity"
"""Name of the line for vCPUs that are paid for and do nothing."""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a fleet costs.

    Args:
        lines: One per demand, in their order, then idle capacity; they sum to the cost.
        instances: Instances by type.
        usd_per_hour: Price of all instances together.
    """

    lines: tuple[LedgerLine, ...]
    instances: dict[str, int]
    usd_per_hour: float

    @property
    def usd_per_1k_requests(self) -> float:
        """Sum of the lines."""
        return sum(line.usd_per_1k_requests for line in self.lines)


def ledger(demands: Sequence[Demand], *, duration_seconds: float, n_requests: int, catalogue: Catalogue) -> Bill:
    """Return the bill of the fleet that these demands need, per 1,000 requests.

    fleet = sum(instances x USD per hour) x duration / 3600; a demand's line is its busy vCPU-seconds x the price of
    a vCPU-second of its instance type; idle capacity is the fleet less the busy lines. All x 1000 / n_requests.

    A fleet that falls behind works on after the trace ends. Money is counted over `duration_seconds` only, so a
    demand's busy time is cut to what its replicas can do in it: such a fleet costs no less than one that keeps up,
    and its latency says that it does not.

    Args:
        demands: At least one; names unique.
        duration_seconds: Time the fleet is rented, > 0.
        n_requests: Requests it answers in that time, >= 1.
        catalogue: Prices.

    Raises:
        InvalidParameterError: If a value is outside its range, a type is unknown, or a replica larger than it.
    """
    _check(demands, duration_seconds=duration_seconds, n_requests=n_requests)
    instances = pack(demands, catalogue=catalogue)
    usd_per_hour = sum(catalogue.instance(name).usd_per_hour * count for name, count in instances.items())
    per_1k = 1000 / n_requests
    busy = [_busy_usd(demand, duration_seconds, catalogue) * per_1k for demand in demands]
    fleet = usd_per_hour * duration_seconds / SECONDS_PER_HOUR * per_1k
    idle = max(0.0, fleet - sum(busy))  # a fleet without idle time leaves a rounding error of either sign
    lines = [LedgerLine(name=demand.name, usd_per_1k_requests=usd) for demand, usd in zip(demands, busy, strict=True)]
    lines.append(LedgerLine(name=IDLE_CAPACITY, usd_per_1k_requests=idle))
    return Bill(lines=tuple(lines), instances=instances, usd_per_hour=usd_per_hour)


def _busy_usd(demand: Demand, duration_seconds: float, catalogue: Catalogue) -> float:
    capacity = demand.vcpus_each * demand.replicas * duration_seconds
    busy = min(demand.busy_vcpu_seconds, capacity)
    return busy * catalogue.instance(demand.instance_type).usd_per_vcpu_second


def _check(demands: Sequence[Demand], *, duration_seconds: float, n_requests: int) -> None:
    names = [demand.name for demand in demands]
    if not names:
        raise InvalidParameterError("demands", rule="at least one", value=0)
    if len(set(names)) != len(names) or IDLE_CAPACITY in names:
        rule = f"unique, and none of them {IDLE_CAPACITY!r}"
        raise InvalidParameterError("names of demands", rule=rule, value=names)
    if not 0 < duration_seconds < float("inf"):
        raise InvalidParameterError("duration_seconds", rule="positive and finite", value=duration_seconds)
    if n_requests < 1:
        raise InvalidParameterError("n_requests", rule="at least 1", value=n_requests)

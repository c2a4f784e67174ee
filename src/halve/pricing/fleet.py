"""How many instances a set of replicas needs. Decides no replica count itself."""

from collections.abc import Iterable
from dataclasses import dataclass

from halve.errors import InvalidParameterError
from halve.pricing.catalogue import Catalogue, InstanceType


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Replicas of one thing, and the work that they did together.

    Args:
        name: Line of the bill: a model, or the gateway.
        instance_type: Where its replicas run.
        vcpus_each: Virtual processors that each replica owns alone, >= 1.
        memory_bytes_each: Memory that each replica needs, >= 0.
        replicas: >= 1.
        busy_vcpu_seconds: Seconds of work times the vCPUs of a replica, over all replicas, finite, >= 0.
    """

    name: str
    instance_type: str
    vcpus_each: int
    memory_bytes_each: int
    replicas: int
    busy_vcpu_seconds: float

    def __post_init__(self) -> None:
        for field, value, least in (
            ("vcpus_each", self.vcpus_each, 1),
            ("memory_bytes_each", self.memory_bytes_each, 0),
            ("replicas", self.replicas, 1),
        ):
            if value < least:
                raise InvalidParameterError(f"{field} of {self.name!r}", rule=f"at least {least}", value=value)
        if not 0 <= self.busy_vcpu_seconds < float("inf"):
            rule = "finite and at least 0"
            raise InvalidParameterError(f"busy_vcpu_seconds of {self.name!r}", rule=rule, value=self.busy_vcpu_seconds)


@dataclass
class _Space:
    """Equal instances, all with this much free."""

    vcpus: int
    memory_bytes: int
    count: int

    def room_for(self, demand: Demand) -> int:
        """Return how many replicas fit on each of the instances."""
        by_vcpus = self.vcpus // demand.vcpus_each
        return min(by_vcpus, self.memory_bytes // demand.memory_bytes_each) if demand.memory_bytes_each else by_vcpus

    def after(self, demand: Demand, *, each: int, count: int) -> "_Space":
        """Return `count` of the instances with so many replicas on each."""
        return _Space(self.vcpus - each * demand.vcpus_each, self.memory_bytes - each * demand.memory_bytes_each, count)


def pack(demands: Iterable[Demand], *, catalogue: Catalogue) -> dict[str, int]:
    """Return how many instances of each type hold all replicas.

    A replica owns whole vCPUs alone, and its memory; all of an instance's memory may be used. First-fit
    decreasing by (vCPUs, memory): each replica goes on the first instance that has room for it. Never fewer
    than the vCPUs or the memory alone would need. O(demands x distinct instance states), whatever the replicas.

    Source: Johnson 1973, Near-optimal bin packing algorithms.

    Raises:
        InvalidParameterError: If a type is unknown, or a replica is larger than its instance.
    """
    by_type: dict[str, list[Demand]] = {}
    for demand in demands:
        by_type.setdefault(demand.instance_type, []).append(demand)
    return {name: _instances(listed, catalogue.instance(name)) for name, listed in by_type.items()}


def _instances(demands: list[Demand], instance: InstanceType) -> int:
    spaces: list[_Space] = []
    for demand in sorted(demands, key=lambda demand: (-demand.vcpus_each, -demand.memory_bytes_each)):
        _check_fits(demand, instance)
        spaces = _place(demand, [*spaces, _Space(instance.vcpus, instance.memory_bytes, demand.replicas)])
        if (spaces[-1].vcpus, spaces[-1].memory_bytes) == (instance.vcpus, instance.memory_bytes):
            spaces.pop()  # instances that were offered and not needed
    return sum(space.count for space in spaces)


def _check_fits(demand: Demand, instance: InstanceType) -> None:
    for what, needed, offered in (
        ("vCPUs", demand.vcpus_each, instance.vcpus),
        ("bytes of memory", demand.memory_bytes_each, instance.memory_bytes),
    ):
        if needed > offered:
            name = f"a replica of {demand.name!r} on {instance.name}"
            raise InvalidParameterError(name, rule=f"at most {offered} {what}", value=needed)


def _place(demand: Demand, spaces: list[_Space]) -> list[_Space]:
    """Fill the spaces in order, each instance before the next; equal instances are filled together."""
    left = demand.replicas
    placed: list[_Space] = []
    for space in spaces:
        room = space.room_for(demand)
        full = min(space.count, left // room) if room else 0
        left -= full * room
        partial = 1 if room and full < space.count and left else 0
        rest = space.count - full - partial
        for each, count in ((room, full), (left, partial), (0, rest)):
            if count:
                placed.append(space.after(demand, each=each, count=count))
        if partial:
            left = 0
    return placed

"""Rentable machines at dated prices. Knows nothing of how fast they are."""

import csv
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from importlib.resources import files

from halve.errors import InvalidParameterError
from halve.units import SECONDS_PER_HOUR


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """A rentable machine. Satisfies `halve.core.InstanceType`.

    Args:
        name: As the cloud spells it: `c6a.large`.
        cloud, region: Where the price holds.
        hardware_class: Machines of one class run the same instructions: `x86-avx2`, `x86-avx512-vnni`, `arm64`,
            `nvidia-l4`; see `data/SOURCE.md`.
        vcpus: Virtual processors, >= 1.
        memory_gib: Memory in GiB.
        accelerator: Name of its GPU, empty without one.
        accelerator_count: GPUs in it.
        is_burstable: Whether the price buys only a baseline share of its processors.
        usd_per_hour: On-demand price, > 0.
        effective_from: Day from which the price is known; None for a price of the user's own.
        source: Where the price comes from.
    """

    name: str
    cloud: str
    region: str
    hardware_class: str
    vcpus: int
    memory_gib: float
    accelerator: str
    accelerator_count: int
    is_burstable: bool
    usd_per_hour: float
    effective_from: date | None
    source: str

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return int(self.memory_gib * 2**30)

    @property
    def usd_per_vcpu_second(self) -> float:
        """Price of one virtual processor for one second."""
        return self.usd_per_hour / self.vcpus / SECONDS_PER_HOUR


@dataclass(frozen=True)
class Catalogue:
    """Instance types by name, each at one price."""

    instances: Mapping[str, InstanceType]

    @classmethod
    def load(cls, as_of: date | None = None) -> "Catalogue":
        """Return the packaged catalogue at the prices of a day; without a day, at the newest.

        Raises:
            InvalidParameterError: If no price at all is known on that day.
        """
        return cls.from_rows(_packaged(), as_of=as_of)

    @classmethod
    def from_rows(cls, rows: Iterable[InstanceType], *, as_of: date | None = None) -> "Catalogue":
        """Return each type at its newest price on a day; without a day, at the newest of all.

        A type whose first price is later than the day is left out. A price without a date holds on every day.

        Raises:
            InvalidParameterError: If there are no rows, or none that early.
        """
        dated = sorted(rows, key=_effective_from)
        if not dated:
            raise InvalidParameterError("prices", rule="at least one row", value=0)
        chosen = {row.name: row for row in dated if as_of is None or _effective_from(row) <= as_of}
        if not chosen:
            rule = f"{_effective_from(dated[0])} or later, the first day with prices"
            raise InvalidParameterError("prices.as_of", rule=rule, value=str(as_of))
        return cls(chosen)

    def instance(self, name: str) -> InstanceType:
        """Return the instance type of that name.

        Raises:
            InvalidParameterError: If the catalogue has none; it says which name is near.
        """
        found = self.instances.get(name)
        if found is None:
            raise _unknown("instance type", name, list(self.instances))
        return found

    def of_class(self, hardware_class: str) -> tuple[InstanceType, ...]:
        """Return the types of one hardware class, cheapest per hour first.

        Raises:
            InvalidParameterError: If no type is of that class; it says which class is near.
        """
        chosen = [instance for instance in self.instances.values() if instance.hardware_class == hardware_class]
        if not chosen:
            known = sorted({instance.hardware_class for instance in self.instances.values()})
            raise _unknown("hardware class", hardware_class, known)
        return tuple(sorted(chosen, key=lambda instance: (instance.usd_per_hour, instance.name)))

    def with_prices(self, usd_per_hour: Mapping[str, float]) -> "Catalogue":
        """Return the catalogue with the user's own prices in place of the listed ones.

        Raises:
            InvalidParameterError: If a type is unknown, or a price is not positive and finite; it names the type.
        """
        instances = dict(self.instances)
        for name, price in usd_per_hour.items():
            instance = self.instance(name)
            if not 0 < price < float("inf"):
                rule = "positive and finite, in USD per hour"
                raise InvalidParameterError(f"prices.usd_per_hour of {name!r}", rule=rule, value=price)
            own = replace(instance, usd_per_hour=float(price), effective_from=None, source="given by the user")
            instances[name] = own
        return Catalogue(instances)


def _unknown(what: str, name: str, known: list[str]) -> InvalidParameterError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"It has, among others, {', '.join(known[:5])}."
    return InvalidParameterError(what, rule="one that the catalogue has", value=name, hint=hint)


def _effective_from(instance: InstanceType) -> date:
    return instance.effective_from or date.min


def _packaged() -> list[InstanceType]:
    text = files("halve.pricing").joinpath("data/instances.csv").read_text(encoding="utf-8")
    return [
        InstanceType(
            name=row["instance_type"],
            cloud=row["cloud"],
            region=row["region"],
            hardware_class=row["hardware_class"],
            vcpus=int(row["vcpus"]),
            memory_gib=float(row["memory_gib"]),
            accelerator=row["accelerator"],
            accelerator_count=int(row["accelerator_count"]),
            is_burstable=row["is_burstable"] == "yes",
            usd_per_hour=float(row["usd_per_hour"]),
            effective_from=date.fromisoformat(row["effective_from"]),
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    ]

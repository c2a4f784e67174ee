"""Adds a dated price list to `src/halve/pricing/data/instances.csv`; old rows stay as they are.

    python tools/build_instances.py PRICES.csv src/halve/pricing/data/instances.csv

PRICES.csv has the columns cloud, instance_type, vcpus, memory_gib, accelerator_count and on_demand_usd_hr, among
others. Which types are taken, and what hardware they are, stands in FAMILIES below.
"""

import csv
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    "cloud", "region", "instance_type", "hardware_class", "vcpus", "memory_gib", "accelerator", "accelerator_count",
    "is_burstable", "usd_per_hour", "effective_from", "source",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """Where one cloud's prices come from, and the day they were generated."""

    region: str
    effective_from: str
    source: str


LISTS = {
    "aws": PriceList(
        region="us-east-1",
        effective_from="2026-07-20",
        source="github.com/aws/karpenter-provider-aws@1d927085dd81 zz_generated.pricing_aws.go",
    ),
    "azure": PriceList(
        region="eastus",
        effective_from="2026-06-18",
        source="github.com/Azure/karpenter-provider-azure@352646f59929 zz_generated.pricing.go",
    ),
    "gcp": PriceList(
        region="us-central1",
        effective_from="2026-08-03",
        source="github.com/cloudpilot-ai/karpenter-provider-gcp@417f047b1175 initial-prices.json",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Instance types of one hardware: the name with `{}` in place of each size."""

    cloud: str
    pattern: str
    sizes: tuple[str, ...]
    hardware_class: str
    accelerator: str = ""
    is_burstable: bool = False


AVX2, AVX2_NARROW, VNNI, ARM = "x86-avx2", "x86-avx2-128bit", "x86-avx512-vnni", "arm64"
AWS_SIZES = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge")


def _aws(names: str, hardware_class: str, sizes: tuple[str, ...] = AWS_SIZES, **more: object) -> list[Family]:
    patterns = [f"{name}.{{}}" for name in names.split()]
    return [
        Family(cloud="aws", pattern=pattern, sizes=sizes, hardware_class=hardware_class, **more)  # type: ignore[arg-type]
        for pattern in patterns
    ]


def _of(cloud: str, pattern: str, sizes: str, hardware_class: str, accelerator: str = "") -> Family:
    chosen = tuple(sizes.split())
    return Family(cloud=cloud, pattern=pattern, sizes=chosen, hardware_class=hardware_class, accelerator=accelerator)


def _gpu(cloud: str, pattern: str, sizes: str, accelerator: str) -> Family:
    return _of(cloud, pattern, sizes, f"nvidia-{accelerator.lower()}", accelerator)


FAMILIES = (
    *_aws("m6a c6a r6a c5a", AVX2),
    *_aws("m5a", AVX2_NARROW),
    *_aws("t3a", AVX2_NARROW, ("small", "medium", "large", "xlarge", "2xlarge"), is_burstable=True),
    *_aws("m7a c7a", VNNI, ("medium", *AWS_SIZES)),
    *_aws("m6i c6i m7i c7i", VNNI),
    *_aws("m7g c7g", ARM, ("medium", *AWS_SIZES)),
    _gpu("aws", "g4dn.{}", "xlarge 2xlarge 12xlarge", "T4"),
    _gpu("aws", "g5.{}", "xlarge 2xlarge 12xlarge", "A10G"),
    _gpu("aws", "g6.{}", "xlarge 2xlarge 12xlarge", "L4"),
    _gpu("aws", "g6e.{}", "xlarge 2xlarge 12xlarge", "L40S"),
    _gpu("aws", "p4d.{}", "24xlarge", "A100-40GB"),
    _gpu("aws", "p4de.{}", "24xlarge", "A100-80GB"),
    _gpu("aws", "p5.{}", "48xlarge", "H100-80GB"),
    _of("gcp", "n2d-standard-{}", "2 4 8 16 32", AVX2),
    _of("gcp", "n2d-highcpu-{}", "2 4 8 16 32", AVX2),
    _of("gcp", "c2d-standard-{}", "2 4 8 16 32", AVX2),
    _of("gcp", "c2d-highcpu-{}", "2 4 8 16 32", AVX2),
    _of("gcp", "c3-standard-{}", "4 8 22", VNNI),
    _of("gcp", "c3d-standard-{}", "4 8 16 30", VNNI),
    _of("gcp", "n4-standard-{}", "2 4 8 16 32", VNNI),
    _of("gcp", "c4a-standard-{}", "1 2 4 8 16", ARM),
    _gpu("gcp", "g2-standard-{}", "4 8 12 24 48", "L4"),
    _gpu("gcp", "a2-highgpu-{}", "1g 8g", "A100-40GB"),
    _gpu("gcp", "a2-ultragpu-{}", "1g 8g", "A100-80GB"),
    _gpu("gcp", "a3-highgpu-{}", "1g 8g", "H100-80GB"),
    _of("azure", "Standard_D{}as_v5", "4 8 16 32", AVX2),
    _of("azure", "Standard_D{}as_v6", "2 4 8 16 32", VNNI),
    _of("azure", "Standard_D{}s_v5", "2 4 8 16 32", VNNI),
    _of("azure", "Standard_D{}s_v6", "2 4 8 16 32", VNNI),
    _of("azure", "Standard_D{}ps_v6", "2 4 8 16 32", ARM),
    _gpu("azure", "Standard_NC{}as_T4_v3", "4 8 64", "T4"),
    _gpu("azure", "Standard_NC{}ads_A100_v4", "24 48 96", "A100-PCIE-80GB"),
    _gpu("azure", "Standard_NC{}ads_H100_v5", "40", "H100-NVL-94GB"),
    _gpu("azure", "Standard_ND{}isr_H100_v5", "96", "H100-80GB"),
)


def rows_from(prices: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the chosen types as rows of the catalogue; KeyError if the price list lacks one."""
    listed = {(row["cloud"], row["instance_type"]): row for row in prices}
    return [
        _row(family, listed[family.cloud, family.pattern.format(size)]) for family in FAMILIES for size in family.sizes
    ]


def _row(family: Family, price: Mapping[str, str]) -> dict[str, str]:
    source = LISTS[family.cloud]
    return {
        "cloud": family.cloud,
        "region": source.region,
        "instance_type": price["instance_type"],
        "hardware_class": family.hardware_class,
        "vcpus": price["vcpus"],
        "memory_gib": price["memory_gib"],
        "accelerator": family.accelerator,
        "accelerator_count": price["accelerator_count"],
        "is_burstable": "yes" if family.is_burstable else "no",
        "usd_per_hour": price["on_demand_usd_hr"],
        "effective_from": source.effective_from,
        "source": source.source,
    }


def merge(old: Iterable[Mapping[str, str]], new: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return every old row untouched, then the new rows whose type is new or whose price has changed since."""
    merged = list(old)
    latest = {row["instance_type"]: row for row in sorted(merged, key=lambda row: row["effective_from"])}
    for row in new:
        known = latest.get(row["instance_type"])
        if known is None or known["usd_per_hour"] != row["usd_per_hour"]:
            merged.append(row)
    return merged


def main(prices: Path, catalogue: Path) -> None:
    """Read the price list and write the catalogue."""
    with prices.open(newline="") as file:
        new = rows_from(csv.DictReader(file))
    old: list[dict[str, str]] = []
    if catalogue.exists():
        with catalogue.open(newline="") as file:
            old = list(csv.DictReader(file))
    with catalogue.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(merge(old, new))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

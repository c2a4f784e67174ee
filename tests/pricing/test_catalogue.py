import csv
import math
import os
import runpy
from dataclasses import replace
from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import halve.core
from halve.errors import InvalidParameterError
from halve.pricing import Catalogue, InstanceType

TOOL = Path(__file__).parents[2] / "tools" / "build_instances.py"


def test_instance_type_satisfies_the_port() -> None:
    port: halve.core.InstanceType = Catalogue.load().instance("c6a.large")
    assert (port.name, port.vcpus, port.memory_gib, port.usd_per_hour) == ("c6a.large", 2, 4.0, 0.0765)


@pytest.mark.parametrize(
    ("name", "usd_per_hour", "hardware_class"),
    [
        ("m6a.large", 0.0864, "x86-avx2"),
        ("m7i.xlarge", 0.2016, "x86-avx512-vnni"),
        ("c7g.large", 0.0725, "arm64"),
        ("g6.xlarge", 0.8048, "nvidia-l4"),
        ("p5.48xlarge", 55.04, "nvidia-h100-80gb"),
        ("n2d-standard-4", 0.168984, "x86-avx2"),
        ("Standard_D4as_v5", 0.172, "x86-avx2"),
    ],
)
def test_prices_are_the_published_ones(name: str, usd_per_hour: float, hardware_class: str) -> None:
    instance = Catalogue.load().instance(name)
    assert (instance.usd_per_hour, instance.hardware_class) == (usd_per_hour, hardware_class)


def test_every_row_is_dated_sourced_and_in_range() -> None:
    for instance in Catalogue.load().instances.values():
        assert instance.usd_per_hour > 0
        assert instance.vcpus >= 1
        assert instance.memory_gib > 0
        assert instance.effective_from is not None
        assert "github.com/" in instance.source
        assert (instance.accelerator_count > 0) == bool(instance.accelerator)
        assert instance.hardware_class.startswith("nvidia-") == bool(instance.accelerator)


def test_within_a_family_a_larger_size_costs_more() -> None:
    catalogue = Catalogue.load()
    for family in ("m6a", "c6a", "m7i", "c7g", "m7a"):
        prices = [catalogue.instance(f"{family}.{size}").usd_per_hour for size in ("large", "xlarge", "2xlarge")]
        assert prices == sorted(prices)


def test_burstable_types_are_marked() -> None:
    marked = {name.split(".")[0] for name, instance in Catalogue.load().instances.items() if instance.is_burstable}
    assert marked == {"t3a"}


def test_price_of_a_vcpu_second() -> None:
    instance = Catalogue.load().instance("m6a.large")
    assert instance.usd_per_vcpu_second == pytest.approx(0.0864 / 2 / 3600, rel=1e-15)
    assert instance.memory_bytes == 8 * 2**30


def test_as_of_leaves_out_prices_that_were_not_known_yet() -> None:
    early = Catalogue.load(date(2026, 6, 18))
    assert {instance.cloud for instance in early.instances.values()} == {"azure"}
    assert {instance.cloud for instance in Catalogue.load(date(2026, 8, 3)).instances.values()} == {
        "aws", "azure", "gcp",
    }  # fmt: skip


def test_as_of_before_any_price_says_the_first_day() -> None:
    with pytest.raises(InvalidParameterError, match=r"prices.as_of must be 2026-06-18 or later.*Got '2020-01-01'"):
        Catalogue.load(date(2020, 1, 1))


def test_unknown_instance_names_the_near_one() -> None:
    with pytest.raises(InvalidParameterError, match=r"Got 'm6a.lrage'. Did you mean 'm6a.large'\?"):
        Catalogue.load().instance("m6a.lrage")


def test_unknown_instance_like_nothing_lists_some() -> None:
    with pytest.raises(InvalidParameterError, match=r"Got '\?\?'. It has, among others, .*\."):
        Catalogue.load().instance("??")


def test_of_class_lists_one_class_cheapest_first() -> None:
    listed = Catalogue.load().of_class("x86-avx2")
    prices = [instance.usd_per_hour for instance in listed]
    assert {"m6a.large", "c6a.large", "c5a.large"} <= {instance.name for instance in listed}
    assert prices == sorted(prices)
    assert not any(instance.is_burstable for instance in listed)


def test_unknown_class_names_the_near_one() -> None:
    with pytest.raises(InvalidParameterError, match=r"hardware class .* Got 'x86-avx3'. Did you mean 'x86-avx2'\?"):
        Catalogue.load().of_class("x86-avx3")


@pytest.mark.parametrize("price", [math.nan, math.inf, -0.1, 0.0])
def test_own_price_that_is_none_is_refused_by_name(price: float) -> None:
    with pytest.raises(InvalidParameterError, match=r"prices.usd_per_hour of 'm6a.large' must be positive .* Got"):
        Catalogue.load().with_prices({"m6a.large": price})


def test_own_price_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"Got 'm6a.largee'. Did you mean 'm6a.large'\?"):
        Catalogue.load().with_prices({"m6a.largee": 0.05})


@given(price=st.floats(min_value=1e-6, max_value=1e3))
def test_own_price_replaces_one_price_and_nothing_else(price: float) -> None:
    listed = Catalogue.load()
    own = listed.with_prices({"m6a.large": price})
    assert own.instance("m6a.large").usd_per_hour == price
    assert own.instance("m6a.large").effective_from is None
    assert own.instance("m6a.large").source == "given by the user"
    assert listed.instance("m6a.large").usd_per_hour == 0.0864
    assert {name for name in own.instances if own.instances[name] != listed.instances[name]} == {"m6a.large"}


def test_a_rate_change_is_a_new_row_and_the_old_one_stays() -> None:
    old = {"instance_type": "x", "usd_per_hour": "1.0", "effective_from": "2026-01-01"}
    same = {"instance_type": "x", "usd_per_hour": "1.0", "effective_from": "2026-02-01"}
    changed = {"instance_type": "x", "usd_per_hour": "0.9", "effective_from": "2026-03-01"}
    merge = runpy.run_path(str(TOOL))["merge"]
    assert merge([old], [same]) == [old]
    assert merge([old], [changed]) == [old, changed]
    assert merge([old, changed], [changed]) == [old, changed]


def test_the_newest_price_on_the_day_wins() -> None:
    old = Catalogue.load().instance("m6a.large")
    cut = replace(old, usd_per_hour=0.05, effective_from=date(2027, 1, 1))
    for rows in ([old, cut], [cut, old]):
        assert Catalogue.from_rows(rows).instance("m6a.large") == cut
        assert Catalogue.from_rows(rows, as_of=date(2026, 12, 31)).instance("m6a.large") == old
        assert Catalogue.from_rows(rows, as_of=date(2027, 1, 1)).instance("m6a.large") == cut


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"prices must be at least one row\. Got 0"):
        Catalogue.from_rows([])


@pytest.mark.data
@pytest.mark.skipif("HALVE_DATA" not in os.environ, reason="HALVE_DATA is not set")
def test_packaged_prices_are_those_of_the_shared_price_list() -> None:
    shared = Path(os.environ["HALVE_DATA"]) / "prices_cloud" / "cloud_prices_us.csv"
    with shared.open(newline="") as file:
        listed = {row["instance_type"]: row for row in csv.DictReader(file)}
    packaged: list[InstanceType] = list(Catalogue.load(date(2026, 8, 31)).instances.values())
    assert len(packaged) == 169
    for instance in packaged:
        row = listed[instance.name]
        assert (instance.cloud, instance.region) == (row["cloud"], row["region"])
        assert (instance.vcpus, instance.memory_gib) == (int(row["vcpus"]), float(row["memory_gib"]))
        assert instance.accelerator_count == int(row["accelerator_count"])
        assert instance.usd_per_hour == float(row["on_demand_usd_hr"])


@pytest.mark.data
@pytest.mark.skipif("HALVE_DATA" not in os.environ, reason="HALVE_DATA is not set")
def test_the_tool_rebuilds_the_packaged_file_byte_for_byte(tmp_path: Path) -> None:
    shared = Path(os.environ["HALVE_DATA"]) / "prices_cloud" / "cloud_prices_us.csv"
    main = runpy.run_path(str(TOOL))["main"]
    main(shared, tmp_path / "instances.csv")
    packaged = files("halve.pricing").joinpath("data/instances.csv").read_bytes()
    assert (tmp_path / "instances.csv").read_bytes() == packaged
    main(shared, tmp_path / "instances.csv")
    assert (tmp_path / "instances.csv").read_bytes() == packaged

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.pricing import Catalogue, Demand, pack

CATALOGUE = Catalogue.load()
GIB = 2**30


def demand(**given: object) -> Demand:
    plain: dict[str, object] = {
        "name": "model", "instance_type": "m6a.xlarge", "vcpus_each": 1, "memory_bytes_each": 0,
        "replicas": 1, "busy_vcpu_seconds": 0.0,
    }  # fmt: skip
    return Demand(**{**plain, **given})  # type: ignore[arg-type]


def one_by_one(demands: list[Demand]) -> int:
    """First-fit decreasing, each replica on its own: the plain path."""
    instance = CATALOGUE.instance("m6a.xlarge")
    bins: list[list[int]] = []
    order = sorted(demands, key=lambda d: (-d.vcpus_each, -d.memory_bytes_each))
    for each in [d for d in order for _ in range(d.replicas)]:
        for space in bins:
            if space[0] >= each.vcpus_each and space[1] >= each.memory_bytes_each:
                break
        else:
            space = [instance.vcpus, instance.memory_bytes]
            bins.append(space)
        space[0] -= each.vcpus_each
        space[1] -= each.memory_bytes_each
    return len(bins)


demands = st.lists(
    st.builds(
        demand,
        vcpus_each=st.integers(1, 4),
        memory_bytes_each=st.integers(0, 16).map(lambda gib: gib * GIB),
        replicas=st.integers(1, 12),
    ),
    min_size=1,
    max_size=5,
)


@given(demands=demands)
def test_filling_equal_instances_together_equals_first_fit_one_by_one(demands: list[Demand]) -> None:
    assert pack(demands, catalogue=CATALOGUE) == {"m6a.xlarge": one_by_one(demands)}


@given(demands=demands)
def test_never_fewer_than_vcpus_or_memory_need_and_never_more_than_one_each(demands: list[Demand]) -> None:
    count = pack(demands, catalogue=CATALOGUE)["m6a.xlarge"]
    vcpus = sum(d.vcpus_each * d.replicas for d in demands)
    memory = sum(d.memory_bytes_each * d.replicas for d in demands)
    assert max(math.ceil(vcpus / 4), math.ceil(memory / (16 * GIB))) <= count <= sum(d.replicas for d in demands)


@given(demands=demands)
def test_order_of_the_demands_does_not_matter(demands: list[Demand]) -> None:
    assert pack(demands, catalogue=CATALOGUE) == pack(demands[::-1], catalogue=CATALOGUE)


def test_replicas_share_an_instance_and_types_do_not_mix() -> None:
    packed = pack(
        [
            demand(vcpus_each=3, replicas=2),
            demand(vcpus_each=1, replicas=3),
            demand(instance_type="c6a.large", vcpus_each=2, replicas=1),
        ],
        catalogue=CATALOGUE,
    )
    assert packed == {"m6a.xlarge": 3, "c6a.large": 1}


def test_memory_can_be_what_runs_out() -> None:
    assert pack([demand(memory_bytes_each=9 * GIB, replicas=5)], catalogue=CATALOGUE) == {"m6a.xlarge": 5}


def test_a_million_replicas_are_packed_at_once() -> None:
    assert pack([demand(vcpus_each=2, replicas=1_000_001)], catalogue=CATALOGUE) == {"m6a.xlarge": 500_001}


def test_nothing_needs_nothing() -> None:
    assert pack([], catalogue=CATALOGUE) == {}


@pytest.mark.parametrize(
    ("too_large", "rule"),
    [
        ({"vcpus_each": 5}, "at most 4 vCPUs. Got 5"),
        ({"memory_bytes_each": 17 * GIB}, "bytes of memory. Got 18253611008"),
    ],
)
def test_replica_larger_than_its_instance_names_both(too_large: dict[str, int], rule: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"a replica of 'model' on m6a.xlarge must be .*{rule}"):
        pack([demand(**too_large)], catalogue=CATALOGUE)


def test_unknown_type_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"Did you mean 'm6a.xlarge'"):
        pack([demand(instance_type="m6a.xlarg")], catalogue=CATALOGUE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vcpus_each", 0),
        ("memory_bytes_each", -1),
        ("replicas", 0),
        ("busy_vcpu_seconds", -0.5),
        ("busy_vcpu_seconds", math.nan),
        ("busy_vcpu_seconds", math.inf),
    ],
)
def test_impossible_demand_names_field_and_value(field: str, value: float) -> None:
    with pytest.raises(InvalidParameterError, match=rf"{field} of 'model' must be .*at least \d\. Got {value}"):
        demand(**{field: value})

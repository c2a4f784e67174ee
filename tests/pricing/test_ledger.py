import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.pricing import IDLE_CAPACITY, Bill, Catalogue, Demand, ledger

CATALOGUE = Catalogue.load()


def demand(**given: object) -> Demand:
    plain: dict[str, object] = {
        "name": "model", "instance_type": "m6a.large", "vcpus_each": 1, "memory_bytes_each": 2**30,
        "replicas": 2, "busy_vcpu_seconds": 1800.0,
    }  # fmt: skip
    return Demand(**{**plain, **given})  # type: ignore[arg-type]


def bill(*demands: Demand, duration_seconds: float = 3600.0, n_requests: int = 10_000) -> Bill:
    return ledger(demands, duration_seconds=duration_seconds, n_requests=n_requests, catalogue=CATALOGUE)


def usd(bill: Bill) -> dict[str, float]:
    return {line.name: line.usd_per_1k_requests for line in bill.lines}


def test_one_instance_for_one_hour_by_hand() -> None:
    # m6a.large: $0.0864 an hour, 2 vCPUs; 1,800 of 7,200 vCPU-seconds busy; 10,000 requests.
    result = bill(demand())
    assert result.instances == {"m6a.large": 1}
    assert result.usd_per_hour == 0.0864
    assert usd(result) == pytest.approx({"model": 0.00216, IDLE_CAPACITY: 0.00648}, rel=1e-12)
    assert result.usd_per_1k_requests == pytest.approx(0.00864, rel=1e-12)


def test_two_types_are_each_priced_by_their_own_vcpu() -> None:
    gpu = demand(name="gpu", instance_type="g6.xlarge", vcpus_each=4, replicas=1, busy_vcpu_seconds=7200.0)
    result = bill(demand(), gpu)
    assert result.instances == {"m6a.large": 1, "g6.xlarge": 1}
    assert usd(result)["gpu"] == pytest.approx(0.8048 / 2 / 10, rel=1e-12)
    assert usd(result)["model"] == usd(bill(demand()))["model"]


def test_work_left_after_the_trace_is_not_billed_twice() -> None:
    behind = bill(demand(busy_vcpu_seconds=1e9))
    assert usd(behind)["model"] == pytest.approx(0.00864, rel=1e-12)
    assert usd(behind)[IDLE_CAPACITY] == pytest.approx(0.0, abs=1e-15)
    assert behind.usd_per_1k_requests == pytest.approx(bill(demand()).usd_per_1k_requests, rel=1e-12)


many = st.lists(
    st.builds(
        demand,
        instance_type=st.sampled_from(["m6a.large", "c6a.xlarge", "g6.xlarge"]),
        vcpus_each=st.integers(1, 2),
        memory_bytes_each=st.integers(0, 4 * 2**30),
        replicas=st.integers(1, 50),
        busy_vcpu_seconds=st.floats(0, 1e6),
    ),
    min_size=1,
    max_size=5,
).map(lambda listed: [demand_named(d, f"model {i}") for i, d in enumerate(listed)])


def demand_named(old: Demand, name: str) -> Demand:
    return Demand(**{**vars(old), "name": name})


durations = st.floats(1e-3, 1e6)
requests = st.integers(1, 10**9)


@given(demands=many, duration=durations, n=requests)
def test_lines_sum_to_what_the_instances_cost(demands: list[Demand], duration: float, n: int) -> None:
    result = bill(*demands, duration_seconds=duration, n_requests=n)
    rented = sum(CATALOGUE.instance(name).usd_per_hour * count for name, count in result.instances.items())
    assert result.usd_per_hour == pytest.approx(rented, rel=1e-12)
    assert result.usd_per_1k_requests == pytest.approx(rented * duration / 3600 / n * 1000, rel=1e-12)
    assert min(usd(result).values()) >= 0
    assert [line.name for line in result.lines] == [*(d.name for d in demands), IDLE_CAPACITY]


@given(demands=many, duration=durations, n=requests, factor=st.integers(2, 9))
def test_bill_is_inverse_in_requests_and_blind_to_the_length_at_one_rate(
    demands: list[Demand], duration: float, n: int, factor: int
) -> None:
    one = bill(*demands, duration_seconds=duration, n_requests=n)
    more = bill(*demands, duration_seconds=duration, n_requests=n * factor)
    assert more.usd_per_1k_requests * factor == pytest.approx(one.usd_per_1k_requests, rel=1e-12)
    longer = bill(*demands, duration_seconds=duration * factor, n_requests=n * factor)
    assert longer.usd_per_1k_requests == pytest.approx(one.usd_per_1k_requests, rel=1e-12)


@given(demands=many, duration=durations, n=requests)
def test_busy_lines_do_not_depend_on_what_else_is_rented(demands: list[Demand], duration: float, n: int) -> None:
    together = usd(bill(*demands, duration_seconds=duration, n_requests=n))
    for each in demands:
        assert together[each.name] == usd(bill(each, duration_seconds=duration, n_requests=n))[each.name]


@given(first=st.floats(0, 3600), second=st.floats(0, 3600))
def test_more_work_moves_money_from_idle_to_busy(first: float, second: float) -> None:
    low, high = (usd(bill(demand(busy_vcpu_seconds=busy))) for busy in sorted((first, second)))
    assert high["model"] >= low["model"]
    assert high[IDLE_CAPACITY] <= low[IDLE_CAPACITY]


def test_dearer_prices_scale_the_bill() -> None:
    dear = CATALOGUE.with_prices({"m6a.large": 0.8640})
    result = ledger([demand()], duration_seconds=3600, n_requests=10_000, catalogue=dear)
    assert result.usd_per_1k_requests == pytest.approx(0.0864, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"duration_seconds": 0.0}, "duration_seconds must be positive and finite. Got 0.0"),
        ({"duration_seconds": math.nan}, "duration_seconds must be positive and finite. Got nan"),
        ({"duration_seconds": math.inf}, "duration_seconds must be positive and finite. Got inf"),
        ({"n_requests": 0}, "n_requests must be at least 1. Got 0"),
    ],
)
def test_impossible_trace_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        bill(demand(), **given)  # type: ignore[arg-type]


def test_no_demand_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"demands must be at least one. Got 0"):
        bill()


@pytest.mark.parametrize("names", [("a", "a"), ("a", IDLE_CAPACITY)])
def test_names_that_would_hide_a_line_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(
        InvalidParameterError, match="names of demands must be unique, and none of them 'idle capacity'"
    ):
        bill(*(demand(name=name) for name in names))

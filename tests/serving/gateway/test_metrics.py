import pytest
from prometheus_client.parser import text_string_to_metric_families

from halve.serving.gateway.metrics import Metrics
from halve.testing.fakes import FakeAnswerer


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.values()))] = sample.value
    return found


def test_the_server_counts_requests_stages_batches_waits_hits_and_money(make_chain, serving, dict_cache):
    makers = {
        "small": lambda: FakeAnswerer(
            confidence=lambda payload: 0.9 if payload[0] < 5 else 0.2, seconds_per_batch=0.01
        ),
        "large": FakeAnswerer,
    }
    client = serving(make_chain(makers, cache=dict_cache, price=2.0))
    for value in (1, 2, 7, 1):
        client.ask(value)
    client.ask(1, 3, 8)
    client.infer({})
    status, text = client.send("GET", "/metrics")
    assert status == 200
    found = samples(text)
    requests = {key[1]: value for key, value in found.items() if key[0] == "halve_requests_total"}
    assert requests == {
        ("200", "small"): 2,
        ("200", "large"): 2,
        ("200", "exact_cache"): 1,
        ("400", "none"): 1,
    }
    answers = {key[1][0]: value for key, value in found.items() if key[0] == "halve_answers_total"}
    assert answers == {"exact_cache": 2, "small": 3, "large": 2}
    assert found["halve_cache_hits_total", ()] == 2
    assert found["halve_cache_misses_total", ()] == 5
    assert found["halve_request_latency_seconds_count", ()] == 6
    assert found["halve_batch_size_count", ("small",)] == 4
    assert found["halve_batch_size_sum", ("small",)] == 5
    assert found["halve_queue_wait_seconds_count", ("small",)] == 5
    assert found["halve_queue_wait_seconds_count", ("large",)] == 2
    assert found["halve_vcpu_seconds_total", ("small",)] >= 4 * 0.01
    for station in ("small", "large", "gateway"):
        assert found["halve_cost_usd_total", (station,)] == pytest.approx(
            2.0 * found["halve_vcpu_seconds_total", (station,)]
        )
    assert found["halve_vcpu_seconds_total", ("gateway",)] > 0
    assert found["halve_in_flight_items", ()] == 0


def test_the_gateways_own_seconds_grow_with_each_look_and_are_never_counted_twice():
    metrics = Metrics(prices={"gateway": 0.5}, stages=(), in_flight=lambda: 3)
    seen = []
    for _ in range(3):
        sum(range(200_000))
        found = samples(metrics.render().decode())
        seen.append(found["halve_vcpu_seconds_total", ("gateway",)])
    assert found["halve_in_flight_items", ()] == 3
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


def test_each_gateway_counts_for_itself():
    first, second = (Metrics(prices={"gateway": 1.0}, stages=("m",), in_flight=int) for _ in range(2))
    first.answered("m")
    assert samples(first.render().decode())["halve_answers_total", ("m",)] == 1
    assert samples(second.render().decode())["halve_answers_total", ("m",)] == 0

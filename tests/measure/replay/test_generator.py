"""Times are compared with the server's own clock readings (cause before effect), never with a stopwatch."""

import asyncio
import gc

import numpy as np
import pytest

from halve.errors import InvalidParameterError, ReplayError
from halve.measure.replay import encode_bodies, free_port, replay


def bodies(count, first=0):
    return encode_bodies([np.array([first + number], dtype=np.float32) for number in range(count)])


def test_every_request_is_sent_once_at_or_after_its_time_and_its_answer_is_read(scripted, answer_to):
    async def handle(heard, server):
        return answer_to(heard, stage=f"stage {int(heard.value) % 2}")

    server = scripted(handle)
    arrivals = np.sort(np.random.default_rng(1).uniform(0, 0.3, 60))
    record = replay(server.url, model_name="m", arrival_seconds=arrivals, bodies=bodies(60))
    assert record.failed == 0
    assert record.labels.tolist() == list(range(60))
    assert record.labels.dtype == np.int64
    assert list(record.stages) == [f"stage {number % 2}" for number in range(60)]
    assert (record.send_lateness_seconds >= 0).all()
    assert (record.latency_seconds >= record.send_lateness_seconds).all()
    assert record.wall_seconds >= arrivals[-1]
    assert record.client_cpu_share > 0
    for heard in server.heard:
        assert heard.arrived_seconds >= record.started_monotonic_seconds + arrivals[int(heard.value)]
    assert sorted(heard.value for heard in server.heard) == list(range(60))


def test_it_never_waits_for_answers_before_it_sends(scripted, answer_to):
    """A closed-loop generator would wait for ever: no reply leaves before the last request is in."""
    everybody_is_here = asyncio.Event()

    async def handle(heard, server):
        if len(server.heard) == 40:
            everybody_is_here.set()
        await everybody_is_here.wait()
        return answer_to(heard)

    server = scripted(handle)
    record = replay(server.url, model_name="m", arrival_seconds=np.arange(40) / 400, bodies=bodies(40))
    assert record.failures == {}
    assert record.most_connections == server.connections == 40


def test_a_stall_is_charged_to_every_request_that_should_have_been_served_during_it(scripted, answer_to):
    """The coordinated omission that a stalled server invites: latency counts from the intended send time."""
    one_at_a_time = asyncio.Lock()

    async def handle(heard, server):
        async with one_at_a_time:
            await asyncio.sleep(0.3 if heard.value == 0 else 0)
        return answer_to(heard)

    server = scripted(handle)
    arrivals = np.arange(30) / 200
    record = replay(server.url, model_name="m", arrival_seconds=arrivals, bodies=bodies(30), max_connections=1)
    replied = {int(heard.value): heard.replied_seconds for heard in server.heard}
    for number in range(30):
        intended = record.started_monotonic_seconds + arrivals[number]
        assert intended + record.latency_seconds[number] >= replied[number]
        # The stall ended after this request's intended time, however late it was really sent.
        assert record.latency_seconds[number] >= replied[0] - intended
    assert (record.latency_seconds >= 0.3 - arrivals).all()


def test_lateness_is_measured_when_there_is_no_connection_to_send_on(scripted, answer_to):
    async def handle(heard, server):
        await asyncio.sleep(0.02)
        return answer_to(heard)

    server = scripted(handle)
    record = replay(server.url, model_name="m", arrival_seconds=np.zeros(6), bodies=bodies(6), max_connections=2)
    assert record.most_connections == server.connections == 2
    replied = sorted(heard.replied_seconds for heard in server.heard)
    late = np.sort(record.send_lateness_seconds) + record.started_monotonic_seconds
    for number in range(2, 6):
        assert late[number] >= replied[number - 2]
    assert (record.latency_seconds >= record.send_lateness_seconds + 0.02).all()


def test_connections_are_kept(scripted, answer_to):
    async def handle(heard, server):
        return answer_to(heard)

    server = scripted(handle)
    record = replay(
        server.url, model_name="m", arrival_seconds=np.arange(5) * 0.05, bodies=bodies(5), warm_up=bodies(1, first=99)
    )
    assert record.failures == {}
    assert server.connections == 1
    assert [heard.value for heard in server.heard] == [99, 0, 1, 2, 3, 4]


def test_each_kind_of_failure_is_counted_and_leaves_a_hole(scripted, answer_to, reply_with):
    async def handle(heard, server):
        if heard.value == 1:
            return reply_with(b'{"error": "no"}', status=503)
        if heard.value == 2:
            return None
        if heard.value == 3:
            await asyncio.sleep(30)
        if heard.value == 4:
            return reply_with(b"<html>")
        if heard.value == 5:
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return answer_to(heard)

    server = scripted(handle)
    record = replay(
        server.url, model_name="m", arrival_seconds=np.arange(8) / 100, bodies=bodies(8), timeout_seconds=1.0
    )
    assert record.failures == {
        "HTTP 503": 1,
        "the server closed the connection": 1,
        "timeout": 1,
        "a reply without a label": 1,
        "a reply that is not HTTP/1.1 with a Content-Length": 1,
    }
    assert record.failed == 5
    assert np.isnan(record.latency_seconds).tolist() == [False, True, True, True, True, True, False, False]
    assert record.labels.tolist() == [0, -1, -1, -1, -1, -1, 6, 7]
    assert record.stages == ("m", "", "", "", "", "", "m", "m")
    assert np.isfinite(record.send_lateness_seconds).all()


def test_a_timeout_counts_from_the_intended_time_even_for_requests_never_sent(scripted, answer_to):
    async def handle(heard, server):
        await asyncio.sleep(30)
        return answer_to(heard)

    server = scripted(handle)
    record = replay(
        server.url,
        model_name="m",
        arrival_seconds=np.zeros(3),
        bodies=bodies(3),
        timeout_seconds=0.2,
        max_connections=1,
    )
    assert record.failures == {"timeout": 3}
    assert np.isnan(record.latency_seconds).all()


def test_an_idle_connection_that_the_server_closes_costs_no_request(scripted, answer_to, reply_with):
    """The server hangs up on the second request of each connection, unread, as if it had tired of waiting."""
    asked = {}

    async def handle(heard, server):
        asked[heard.value] = asked.get(heard.value, 0) + 1
        return None if server.connections == 1 and len(server.heard) == 2 else answer_to(heard)

    server = scripted(handle)
    record = replay(server.url, model_name="m", arrival_seconds=np.arange(4) * 0.1, bodies=bodies(4))
    assert record.failures == {}
    assert record.labels.tolist() == [0, 1, 2, 3]
    assert asked == {0: 1, 1: 2, 2: 1, 3: 1}


def test_a_server_that_closes_after_each_reply_is_asked_on_new_connections(scripted, answer_to):
    async def handle(heard, server):
        return answer_to(heard).replace(b"Content-Length", b"Connection: close\r\nContent-Length")

    server = scripted(handle)
    record = replay(server.url, model_name="m", arrival_seconds=np.zeros(6), bodies=bodies(6), max_connections=2)
    assert record.failures == {}
    assert record.labels.tolist() == list(range(6))
    assert server.connections >= 6


def test_text_labels_stay_text(scripted, reply_with):
    async def handle(heard, server):
        if heard.value == 1:
            return reply_with(b"{}")
        return reply_with(b'{"outputs": [{"name": "label", "data": ["yes"]}]}')

    record = replay(scripted(handle).url, model_name="m", arrival_seconds=np.zeros(2), bodies=bodies(2))
    assert record.labels.dtype == object
    assert record.labels.tolist() == ["yes", ""]


def test_where_nobody_listens_every_request_fails_with_the_reason():
    url = f"http://127.0.0.1:{free_port()}"
    record = replay(url, model_name="m", arrival_seconds=np.arange(5) / 100, bodies=bodies(5))
    assert record.failures == {"no connection: ConnectionRefusedError": 5}
    assert np.isnan(record.send_lateness_seconds).all()


def test_a_warm_up_that_fails_stops_everything(scripted, reply_with):
    async def handle(heard, server):
        return reply_with(b'{"error": "the model must be \'x\'."}', status=404)

    server = scripted(handle)
    with pytest.raises(ReplayError, match=r"must be answered with 200. Got 404: b'.*the model must be"):
        replay(server.url, model_name="m", arrival_seconds=np.zeros(1), bodies=bodies(1), warm_up=bodies(2))
    assert len(server.heard) == 2


def test_a_warm_up_that_hangs_stops_everything(scripted):
    async def handle(heard, server):
        await asyncio.sleep(30)

    with pytest.raises(ReplayError, match=r"must be answered within 0.2 s"):
        replay(
            scripted(handle).url, model_name="m", arrival_seconds=np.zeros(1), bodies=bodies(1), warm_up=bodies(1),
            timeout_seconds=0.2,
        )  # fmt: skip


def test_the_garbage_collector_rests_during_the_run_and_works_afterwards(scripted, answer_to):
    seen = []

    async def handle(heard, server):
        seen.append(gc.isenabled())
        return answer_to(heard)

    assert gc.isenabled()
    replay(scripted(handle).url, model_name="m", arrival_seconds=np.zeros(1), bodies=bodies(1))
    assert seen == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arrival_seconds": np.array([])}, r"arrival_seconds must be at least 1, finite, sorted, from 0. Got \[\]"),
        ({"arrival_seconds": np.array([1.0, 0.5])}, r"sorted, from 0. Got \[1.0, 0.5\]"),
        ({"arrival_seconds": np.array([-1.0, 0.5])}, r"sorted, from 0. Got \[-1.0, 0.5\]"),
        ({"arrival_seconds": np.array([0.0, np.nan])}, r"sorted, from 0. Got \[0.0, nan\]"),
        ({"bodies": [b""]}, r"bodies must be one per arrival, 2. Got 1"),
        ({"timeout_seconds": 0.0}, r"timeout_seconds must be positive and finite. Got 0.0"),
        ({"max_connections": 0}, r"max_connections must be at least 1. Got 0"),
        ({"url": "https://127.0.0.1:1"}, r"url must be http://host:port. Got 'https://127.0.0.1:1'"),
        ({"url": "http://127.0.0.1"}, r"url must be http://host:port. Got 'http://127.0.0.1'"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named(changes, sentence):
    given_values = {"url": "http://127.0.0.1:9", "arrival_seconds": np.zeros(2), "bodies": [b"", b""]} | changes
    with pytest.raises(InvalidParameterError, match=sentence):
        replay(given_values.pop("url"), model_name="m", **given_values)

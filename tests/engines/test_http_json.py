import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.engines.http_json import (
    MOST_WAIT_SECONDS,
    HttpError,
    JsonClient,
    Policy,
    backoff_seconds,
    retry_after_seconds,
)

SECRET = "sk-verysecret"


@pytest.fixture
def client(server, request):
    def client(*, timeout_seconds=5.0, retries=2, backoff_seconds=0.0, key=None, url=None):
        policy = Policy(timeout_seconds=timeout_seconds, retries=retries, backoff_seconds=backoff_seconds)
        made = JsonClient(url or server.url, policy=policy, key=key)
        request.addfinalizer(made.close)
        return made

    return client


def scripted(*replies):
    """Return a script that gives these replies in turn."""
    rest = list(replies)
    return lambda _: rest.pop(0)


OK = (200, {}, {"said": "yes"})


def test_a_body_goes_out_as_json_and_json_comes_back(server, client):
    server.script = lambda body: (200, {}, {"heard": body})
    assert client().post("/ask", {"a": "\u00fc \ud800"}) == {"heard": {"a": "\u00fc \ud800"}}
    path, headers, _ = server.requests[0]
    assert path == "/v1/ask"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers


def test_the_key_is_a_bearer_token(server, client):
    server.script = lambda _: OK
    client(key=SECRET).post("/ask", {})
    assert server.requests[0][1]["Authorization"] == f"Bearer {SECRET}"


def test_a_connection_is_kept_and_used_again(server, client):
    server.script = lambda _: OK
    one = client()
    one.connect()
    for _ in range(5):
        one.post("/ask", {})
    assert server.connections == 1


def test_an_idle_connection_that_the_server_ended_costs_no_attempt(server, client):
    server.script = scripted(OK, None, OK)
    one = client(retries=0)
    one.post("/ask", {})
    assert one.post("/ask", {}) == {"said": "yes"}
    assert server.connections == 2


def test_a_server_that_ends_connections_is_asked_on_new_ones(server, client):
    server.script = lambda _: (200, {"Connection": "close"}, {})
    one = client(retries=0)
    assert [one.post("/ask", {}) for _ in range(3)] == [{}, {}, {}]
    assert server.connections == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_busy_server_is_asked_again_when_it_says(server, client, status):
    busy = (status, {"Retry-After": "0"}, b"busy")
    server.script = scripted(busy, busy, OK)
    # A wait of its own would be MOST_WAIT_SECONDS: the test would not end if Retry-After were not honoured.
    assert client(backoff_seconds=1e9).post("/ask", {}) == {"said": "yes"}
    assert len(server.requests) == 3


def test_a_lost_connection_is_tried_again(server, client):
    server.script = scripted(None, None, OK)
    assert client(retries=2).post("/ask", {}) == {"said": "yes"}
    assert server.connections == 3


def test_exhausted_retries_say_what_the_server_said_and_how_often(server, client):
    server.script = lambda _: (500, {}, {"error": {"message": "out of\n memory", "code": 500}})
    with pytest.raises(
        HttpError, match=r"^HTTP 500 Internal Server Error: out of memory \(attempt 3 of 3\)$"
    ) as caught:
        client().post("/ask", {})
    assert not caught.value.is_endpoints
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "is_endpoints"),
    [(400, False), (401, True), (403, True), (404, True), (405, True), (413, False), (422, False), (302, True)],
)
def test_other_statuses_are_not_tried_again(server, client, status, is_endpoints):
    server.script = lambda _: (status, {"Location": "http://127.0.0.1:1/"}, b"no")
    with pytest.raises(HttpError, match=f"^HTTP {status} ") as caught:
        client().post("/ask", {})
    assert caught.value.is_endpoints is is_endpoints
    assert len(server.requests) == 1


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, client):
    server.script = lambda _: (429, {"Retry-After": "3600"}, b"")
    with pytest.raises(HttpError, match=r"^HTTP 429 Too Many Requests, and asks to wait 3600 s$"):
        client().post("/ask", {})


@pytest.mark.parametrize("reply", [b"{", b"", b"\xff", b"<html>", b"[" * 100_000])
def test_a_reply_that_is_no_json_is_refused(server, client, reply):
    server.script = lambda _: (200, {}, reply)
    with pytest.raises(HttpError, match=r"^its reply must be JSON. Got ") as caught:
        client().post("/ask", {})
    assert len(str(caught.value)) < 400


def test_a_reply_that_is_cut_short_is_tried_again(server, client):
    cut = (200, {"Content-Length": "100", "Connection": "close"}, b'{"a": 1}')
    server.script = scripted(cut, OK)
    assert client().post("/ask", {}) == {"said": "yes"}
    server.script = lambda _: cut
    with pytest.raises(HttpError, match=r"IncompleteRead.*\(attempt 3 of 3\)"):
        client().post("/ask", {})


def test_a_server_that_is_silent_times_out(server, client):
    server.script = lambda _: server.released.wait() and OK
    with pytest.raises(HttpError, match=r"^no reply in time \(attempt 2 of 2\)$") as caught:
        client(timeout_seconds=0.05, retries=1).post("/ask", {})
    assert not caught.value.is_endpoints


def test_a_closed_port_is_the_endpoints_fault(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    one = client(url=f"http://127.0.0.1:{port}/v1", retries=1)
    for call in (one.connect, lambda: one.post("/ask", {})):
        with pytest.raises(HttpError, match=r"^Connection refused") as caught:
            call()
        assert caught.value.is_endpoints


def test_https_is_spoken_to_an_https_url(server, client):
    one = client(url=server.url.replace("http:", "https:"))
    with pytest.raises(HttpError, match="SSL") as caught:  # The server speaks plain HTTP.
        one.connect()
    assert caught.value.is_endpoints
    with pytest.raises(HttpError, match="SSL"):
        one.post("/ask", {})
    assert server.requests == []


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
def test_a_server_that_repeats_the_key_does_not_get_it_into_the_message(server, client, status):
    server.script = lambda _: (status, {}, f"Incorrect API key: {SECRET}".encode())
    with pytest.raises(HttpError) as caught:
        client(key=SECRET).post("/ask", {})
    assert SECRET not in f"{caught.value!r} {caught.value.cause}"
    assert caught.value.__cause__ is None


def test_closing_ends_a_wait_for_a_retry(server, client):
    asked = threading.Event()

    def script(_):
        asked.set()
        return 503, {}, b""

    server.script = script
    one = client(backoff_seconds=1e9)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(one.post, "/ask", {})
        asked.wait()
        one.close()
        with pytest.raises(HttpError, match="it was closed while a request waited"):
            waiting.result()


def test_threads_share_a_client(server, client):
    server.script = lambda body: (200, {}, body)
    one = client()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda k: one.post("/ask", {"k": k})["k"], range(64))) == list(range(64))
    assert server.connections <= 8


@given(st.integers(0, 20), st.floats(0, 1e6))
def test_waits_double_within_half_and_one_and_a_half_and_are_bounded(attempt, first):
    wait = backoff_seconds(attempt, first=first)
    assert min(first * 2**attempt * 0.5, MOST_WAIT_SECONDS) <= wait <= min(first * 2**attempt * 1.5, MOST_WAIT_SECONDS)


def test_retry_after_golden():
    now = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)
    assert retry_after_seconds("120") == 120
    assert retry_after_seconds(" 0 ") == 0
    assert retry_after_seconds("Sun, 06 Nov 1994 08:49:37 GMT", now=now) == 30  # The date of RFC 9110, 5.6.7.
    assert retry_after_seconds("Sun, 06 Nov 1994 08:48:37 GMT", now=now) == 0
    assert retry_after_seconds("Sun, 06 Nov 1994 08:49:37 -0000", now=now) == 30
    assert [retry_after_seconds(text) for text in (None, "", "soon", "-1", "1.5", "\u00b2")] == [None] * 6


def test_quoted_text_is_one_short_line(client):
    assert client().quoted(b"a\r\n b\xff") == "a b\ufffd"
    assert len(client().quoted("x" * 5000)) == 300
    assert json.dumps(client(key="k").quoted("k1k")) == '"***1***"'

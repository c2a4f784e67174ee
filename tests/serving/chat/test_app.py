import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from halve.errors import InvalidParameterError, StorageError
from halve.serving.chat import ChatLimits, app
from halve.serving.chat.completions import StreamReader
from halve.testing.chat import chunks, completion


def said(response):
    return response.json()["choices"][0]["message"]["content"]


def until(true, seconds=20):
    """Wait for what another thread does soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def read(response):
    """Return the completion that a stream of events makes."""
    reader = StreamReader()
    reader.feed(response.content)
    return reader.completion()


def two_at_once(one, behind, answer):
    """Ask the same twice before the server behind answers the first; return the replies."""
    may_go = threading.Event()

    def slow(body):
        may_go.wait(20)
        return answer

    behind.script = slow
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(one.ask, "same text") for _ in range(2)]
        until(lambda: len(one.memory.looked) == 2)
        may_go.set()
        return [future.result() for future in asked]


def test_the_second_time_the_answer_comes_from_the_cache(front, behind):
    one = front()
    first = one.ask("hello you")
    until(lambda: one.memory.held)
    again = one.ask("hello you")
    near = one.ask("hello me")
    assert [each.headers["x-halve-cache"] for each in (first, again, near)] == ["miss", "exact", "semantic"]
    assert near.headers["x-halve-probability"] == "0.7500"
    assert len(behind.asked) == 1
    assert first.json() == completion("hello")
    assert said(again) == said(near) == "hello"
    assert again.json()["id"] != near.json()["id"] != first.json()["id"]
    assert again.json()["usage"] == first.json()["usage"]
    assert one.metric('halve_chat_requests_total{outcome="exact",status="200"}') == 1
    assert one.metric("halve_chat_saved_usd_total") == 1.0
    assert one.metric("halve_chat_lookup_seconds_count") == 3


def test_the_request_and_its_headers_reach_the_server_behind(front, behind):
    one = front()
    one.ask("hi", headers={"x-organisation": "us", "accept-encoding": "gzip"}, temperature=0.5)
    ((method, path, headers, body),) = behind.asked
    assert (method, path) == ("POST", "/v1/chat/completions")
    assert body["temperature"] == 0.5
    sent = {name.lower(): value for name, value in headers.items()}
    assert (sent["authorization"], sent["x-organisation"]) == ("Bearer one", "us")
    assert sent["accept-encoding"] == "identity"
    assert sent["host"] in behind.url


def test_a_key_of_the_operator_takes_the_place_of_the_callers(front, behind):
    front(key="secret").ask("hi")
    headers = {name.lower(): value for name, value in behind.asked[0][2].items()}
    assert headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(("tenant_header", "calls"), [("authorization", 2), ("X-Team", 1), (None, 1)])
def test_tenants_share_nothing(front, behind, tenant_header, calls):
    one = front(tenant_header=tenant_header)
    one.ask("hi", key="one", headers={"x-team": "a"})
    until(lambda: one.memory.held)
    one.ask("hi", key="two", headers={"x-team": "a"})
    assert len(behind.asked) == calls
    assert all(b"Bearer" not in partition for partition in one.memory.held)


def test_identical_and_near_requests_in_flight_are_one_call(front, behind):
    may_go = threading.Event()

    def slow(body):
        may_go.wait(20)
        return completion("once")

    behind.script = slow
    one = front()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(one.ask, "same text")
        until(lambda: behind.asked)
        others = [pool.submit(one.ask, text) for text in ("same text", "same words", "same text", "else")]
        until(lambda: len(one.memory.looked) == 5)
        until(lambda: len(behind.asked) == 2)
        may_go.set()
        outcomes = [future.result().headers["x-halve-cache"] for future in (first, *others)]
    assert outcomes == ["miss", "merged", "merged", "merged", "miss"]
    assert all(said(future.result()) == "once" for future in others)
    assert len(behind.asked) == 2


@pytest.mark.parametrize(
    "headers", [[("authorization", "")], [("authorization", "Bearer a"), ("authorization", "Bearer b")]]
)
def test_who_says_not_or_twice_who_it_is_goes_past_the_cache(front, behind, headers):
    one = front()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi there"}]}
    request = one.client.build_request("POST", "/v1/chat/completions", json=body)
    del request.headers["authorization"]
    request.headers = httpx2.Headers([*request.headers.raw, *(pair for pair in headers if pair[1])])
    assert one.client.send(request).headers["x-halve-cache"] == "bypass"
    assert not one.memory.looked


@pytest.mark.parametrize("beside", [{"openai-organization": "b"}, {"openai-project": "b"}])
def test_organisations_of_one_key_share_nothing(front, behind, beside):
    one = front()
    one.ask("hi there", headers={"openai-organization": "a"})
    until(lambda: one.memory.held)
    assert one.ask("hi there", headers={"openai-organization": "a"}).headers["x-halve-cache"] == "exact"
    assert one.ask("hi there", headers=beside).headers["x-halve-cache"] == "miss"


def test_the_cookies_of_one_caller_do_not_go_with_another(front, behind):
    one = front()
    behind.script = lambda body: (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: session=of-one\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    assert "session=of-one" in one.ask("hi there").headers["set-cookie"]
    one.client.cookies.clear()
    one.ask("hi again", key="two")
    assert "cookie" not in {name.lower() for name in behind.asked[1][2]}


def test_a_stream_goes_by_while_it_comes_and_is_stored_whole(front, behind):
    may_end = threading.Event()
    parts = chunks("good ", "day")
    behind.script = lambda body: [parts[0], parts[1], lambda: may_end.wait(20) and parts[2], *parts[3:]]
    one = front()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi there"}]}
    with one.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert json.loads(next(lines)[6:])["choices"][0]["delta"]["role"] == "assistant"
        next(lines)
        assert json.loads(next(lines)[6:])["choices"][0]["delta"]["content"] == "good "  # and the end has not come yet
        assert not one.memory.held
        may_end.set()
        assert list(lines)[-2] == "data: [DONE]"
    until(lambda: one.memory.held)
    again = one.client.post("/v1/chat/completions", json={**body, "stream": False})
    assert (again.headers["x-halve-cache"], said(again)) == ("exact", "good day")


def test_a_stored_answer_is_streamed_to_who_asks_for_a_stream(front, behind):
    one = front()
    one.ask("hi there")
    until(lambda: one.memory.held)
    streamed = one.ask("hi there", stream=True, stream_options={"include_usage": True})
    assert streamed.headers["content-type"] == "text/event-stream"
    found = read(streamed)
    assert found["choices"] == completion("hello")["choices"]
    assert found["usage"]["total_tokens"] == 5
    assert "usage" not in read(one.ask("hi there", stream=True))
    assert len(behind.asked) == 1


@pytest.mark.parametrize(
    "parts",
    [
        [*chunks("Hal", finish=None, done=False), ValueError()],
        chunks("Hal", finish=None),
        chunks("Hal", finish="length"),
        chunks("Hal", done=False),
        [b'data: {"error": {"message": "overloaded"}}\n\n', b"data: [DONE]\n\n"],
    ],
    ids=["cut", "no reason", "too long", "not done", "error"],
)
def test_a_stream_that_is_not_whole_is_never_stored(front, behind, parts):
    behind.script = lambda body: list(parts)
    one = front()
    first = one.ask("hi there", stream=True)
    one.ask("hi there", stream=True)
    assert len(behind.asked) == 2
    assert not one.memory.held
    cut = any(isinstance(part, Exception) for part in parts)
    assert (b"upstream_error" in first.content) == cut


@pytest.mark.parametrize(
    "answer",
    [
        (429, {"error": {"message": "slow down"}}),
        (200, {"error": {"message": "no"}}),
        (200, completion(None, tool_calls=[{"id": "1"}])),
        (200, completion("", refusal="I can not")),
        (200, ["no object"]),
    ],
)
def test_errors_calls_of_tools_and_refusals_are_passed_on_and_never_stored(front, behind, answer):
    behind.script = lambda body: answer
    one = front()
    for _ in range(2):
        reply = one.ask("hi there")
        assert (reply.status_code, reply.json()) == answer
        assert reply.headers["x-request-id"] == "7"
    assert len(behind.asked) == 2
    assert not one.memory.held


def test_a_call_of_a_tool_is_not_shared_in_flight_either(front, behind):
    replies = two_at_once(front(), behind, completion(None, tool_calls=[{"id": "1"}]))
    assert [reply.status_code for reply in replies] == [200, 200]
    assert len(behind.asked) == 2


def test_one_error_answers_all_that_waited_for_it(front, behind):
    replies = two_at_once(front(), behind, (503, {"error": {"message": "busy"}}))
    replies.sort(key=lambda reply: reply.headers["x-halve-cache"])
    assert [(reply.status_code, reply.headers["x-halve-cache"]) for reply in replies] == [
        (503, "merged"), (503, "miss"),
    ]  # fmt: skip
    assert "answered 503 to the same request" in replies[0].json()["error"]["message"]
    assert "x-request-id" not in replies[0].headers
    assert replies[1].json() == {"error": {"message": "busy"}}
    assert len(behind.asked) == 1


def test_what_is_wrong_with_one_request_is_not_said_of_another(front, behind):
    replies = two_at_once(front(), behind, (401, {"error": {"message": "no such key"}}))
    assert [reply.status_code for reply in replies] == [401, 401]
    assert len(behind.asked) == 2


def test_a_caller_who_hangs_up_takes_nobody_with_it(front, behind):
    may_go = threading.Event()
    behind.script = lambda body: [chunks("a")[0], lambda: may_go.wait(20) and b"", *chunks("a")[1:]]
    one = front()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "same text"}]}
    sent = {"authorization": "Bearer one"}
    with ThreadPoolExecutor(1) as pool:
        with one.client.stream("POST", "/v1/chat/completions", json=body, headers=sent) as leader:
            next(leader.iter_raw())
            other = pool.submit(one.ask, "same text")
            until(lambda: len(one.memory.looked) == 2)
        until(lambda: len(behind.asked) == 2)  # the one that waited asks for itself
        may_go.set()
        assert (other.result().status_code, other.result().headers["x-halve-cache"]) == (200, "miss")


@pytest.mark.parametrize(("asks", "outcome", "looked"), [("no-cache", "miss", 0), ("no-store", "bypass", 0)])
def test_a_caller_may_go_past_the_cache(front, behind, asks, outcome, looked):
    one = front()
    reply = one.ask("hi there", headers={"cache-control": asks})
    assert reply.headers["x-halve-cache"] == outcome
    assert len(one.memory.looked) == looked
    if asks == "no-cache":
        until(lambda: one.memory.held)
    else:
        assert not one.memory.held


def test_what_may_not_be_cached_and_what_is_no_chat_goes_by(front, behind):
    one = front()
    assert one.ask("never").headers["x-halve-cache"] == "bypass"
    behind.script = lambda body: {"data": ["m"]}
    models = one.client.get("/v1/models", params={"limit": 1})
    assert (models.json(), models.headers["x-halve-cache"]) == ({"data": ["m"]}, "passed")
    assert behind.asked[-1][:2] == ("GET", "/v1/models?limit=1")
    assert one.client.post("/v1/embeddings", json={"input": "x"}).json() == {"data": ["m"]}
    assert not one.memory.held


def test_a_cache_that_fails_costs_hits_and_no_request(front, memory, caplog):
    memory.error = StorageError("the disk is gone")
    one = front(memory=memory)
    assert [one.ask("hi there").headers["x-halve-cache"] for _ in range(2)] == ["miss", "miss"]
    assert caplog.text.count("the disk is gone") == 1


def test_a_look_up_that_takes_too_long_is_a_miss_and_the_next_ones_wait_for_none(front, memory, monkeypatch):
    may_go = threading.Event()
    monkeypatch.setattr(app, "LOOKUP_SECONDS", 0.05)
    monkeypatch.setattr(memory, "find", lambda question: memory.looked.append(1) or may_go.wait(20))
    one = front(memory=memory)
    assert [one.ask("hi there").headers["x-halve-cache"] for _ in range(3)] == ["miss", "miss", "miss"]
    assert len(memory.looked) == 1
    may_go.set()


def test_what_the_memory_cannot_read_is_for_the_server_behind_to_judge(front, behind, memory, monkeypatch):
    def strange(request, *, tenant):
        raise RecursionError

    monkeypatch.setattr(memory, "question", strange)
    assert front(memory=memory).ask("hi there").headers["x-halve-cache"] == "bypass"
    assert len(behind.asked) == 1


def test_who_hangs_up_after_the_last_event_leaves_the_answer_behind(front, behind):
    may_end = threading.Event()
    behind.script = lambda body: [*chunks("a"), lambda: may_end.wait(20) and b": the end\n\n"]
    one = front()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi there"}]}
    with one.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert "data: [DONE]" in list(itertools.islice(response.iter_lines(), 7))
    may_end.set()
    until(lambda: one.memory.held)


def test_who_does_not_read_holds_up_nobody(front, behind):
    """The first caller reads nothing of megabytes; who waits for the same is answered all the same."""
    may_go = threading.Event()
    long = chunks(*("x" * 2**20 for _ in range(16)))
    behind.script = lambda body: [lambda: may_go.wait(20) and b"", *long]
    one = front()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "same text"}]}
    with ThreadPoolExecutor(1) as pool, one.client.stream("POST", "/v1/chat/completions", json=body):
        until(lambda: behind.asked)
        other = pool.submit(one.ask, "same text")
        until(lambda: len(one.memory.looked) == 2)
        may_go.set()
        assert other.result().headers["x-halve-cache"] == "merged"
        assert len(said(other.result())) == 16 * 2**20


@pytest.mark.parametrize("path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/a/.%2E/b"])
def test_no_path_leads_out_of_the_server_behind(front, behind, path):
    with socket.create_connection(("127.0.0.1", front().server.port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: raw.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"path must be without . and .." in said
    assert not behind.asked


def test_paths_and_lengths_go_by_as_they_are(front, behind):
    one = front()
    one.client.get("/v1/models/us%2Fmodel")
    assert behind.asked[0][1] == "/v1/models/us%2Fmodel"
    behind.script = lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Halve-Cache: theirs\r\n\r\n"
    head = one.client.head("/v1/files/1")
    assert (head.headers["content-length"], head.headers["x-halve-cache"]) == ("1000", "passed")


def test_a_body_that_breaks_off_breaks_off(front, behind):
    behind.script = lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
    one = front()
    with pytest.raises(httpx2.RemoteProtocolError):
        one.client.get("/v1/files/1/content")
    assert one.metric('halve_chat_requests_total{outcome="passed",status="502"}') == 1


def test_a_server_that_is_not_there_is_502(front):
    one = front(url="http://127.0.0.1:9/v1")
    for reply in (one.ask("hi there"), one.ask("never"), one.client.get("/v1/models")):
        assert reply.status_code == 502
        assert reply.json()["error"]["type"] == "upstream_error"
        assert "the server behind the cache gave no whole reply" in reply.json()["error"]["message"]


def test_bad_requests_are_one_sentence(front, behind):
    one = front(limits=ChatLimits(body_bytes=100))
    assert one.client.post("/v1/chat/completions", content=b"{").json()["error"]["message"] == (
        "the request body must be a JSON object."
    )
    long = one.client.post("/v1/chat/completions", content=b"x" * 101)
    assert (long.status_code, long.json()["error"]["message"]) == (
        413, "the request body must be at most 100 bytes. Got more.",
    )  # fmt: skip
    lost = one.client.get("/chat")
    assert (lost.status_code, "must begin with /v1/" in lost.json()["error"]["message"]) == (404, True)
    assert one.client.get("/healthz").json() == {"live": True}
    assert not behind.asked
    with pytest.raises(InvalidParameterError, match=r"limits.body_bytes must be at least 1. Got 0"):
        ChatLimits(body_bytes=0)


def test_what_was_answered_is_stored_before_it_stops(front, behind):
    one = front()
    one.ask("hi there")
    one.server.stop()
    until(lambda: one.memory.closed)
    assert one.memory.held

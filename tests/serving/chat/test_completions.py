import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.serving.chat.completions import MOST_EVENT_BYTES, StreamReader, again, error, error_event, events
from halve.testing.chat import chunks, completion


def read(*parts):
    reader = StreamReader()
    for part in parts:
        reader.feed(part)
    return reader.completion()


@given(st.text(), st.booleans(), st.lists(st.integers(0, 2_000), max_size=5))
def test_a_completion_comes_back_from_its_own_stream_however_it_is_cut(text, with_usage, cuts):
    given_completion = completion(text)
    stream = b"".join(events(given_completion, with_usage=with_usage))
    places = sorted(min(cut, len(stream)) for cut in cuts)
    parts = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]
    found = read(*parts)
    expected = given_completion if with_usage else {k: v for k, v in given_completion.items() if k != "usage"}
    assert found == expected


def test_a_stream_of_another_server_is_put_together():
    head, *rest = chunks("good ", "day")
    usage = b'data: {"choices": [], "usage": {"total_tokens": 5}}\r\n\r\n'
    found = read(b": a comment\n\n", head, *rest[:-1], usage, rest[-1])
    assert found["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "good day"}, "finish_reason": "stop"}
    ]
    assert (found["usage"], found["object"], found["model"]) == ({"total_tokens": 5}, "chat.completion", "m")


def test_a_role_that_is_not_said_is_the_assistants():
    head = b'data: {"choices": [{"index": 0, "delta": {"role": null, "content": "a"}, "finish_reason": "stop"}]}\n\n'
    assert read(head, b"data: [DONE]")["choices"][0]["message"] == {"role": "assistant", "content": "a"}


def test_a_usage_that_is_not_known_is_none():
    plain = {name: value for name, value in completion("a").items() if name != "usage"}
    assert again(plain)["usage"]["total_tokens"] == 0
    assert again(completion("a"))["usage"]["total_tokens"] == 5


def test_other_texts_of_a_message_are_kept():
    thought = b'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "so"}, "finish_reason": null}]}\n\n'
    assert read(thought, *chunks("a"))["choices"][0]["message"]["reasoning_content"] == "so"


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b'data: {"error": {}, "choices": []}\n\n',
        b'data: {"choices": [{"index": 1, "delta": {}}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]}\n\n',
        b'data: {"choices": ["no"]}\n\n',
        b'data: {"choices": "no"}\n\n',
    ],
)
def test_what_is_not_one_text_is_no_completion(event):
    assert read(event, *chunks("a")) is None


def test_a_line_without_an_end_is_not_kept_for_ever():
    reader = StreamReader()
    for _ in range(17):
        reader.feed(b"x" * 2**20)
    assert len(reader._rest) < MOST_EVENT_BYTES
    reader.feed(b"\n")
    for chunk in chunks("a"):
        reader.feed(chunk)
    assert reader.completion() is None


def test_each_answer_has_an_id_of_its_own():
    one, other = again(completion("a")), again(completion("a"))
    assert one["id"] != other["id"]
    assert one["choices"] == completion("a")["choices"]


def test_errors_are_what_clients_read():
    assert json.loads(error("no", kind="k"))["error"]["message"] == "no"
    assert json.loads(error_event("no", kind="k").strip().removeprefix(b"data: "))["error"]["type"] == "k"

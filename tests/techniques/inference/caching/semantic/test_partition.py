import json
import random
from dataclasses import fields, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.partition import (
    IGNORED_FIELDS,
    Scope,
    cacheable,
    content_digest,
    from_chat_request,
    partition_key,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
scopes = st.builds(
    Scope,
    tenant=st.text(max_size=3),
    model=st.text(max_size=3),
    system_prompt=json_values,
    tools=json_values,
    response_format=json_values,
    sampling=json_values,
    prefix=json_values,
    data_version=st.text(max_size=3),
    encoder=st.text(max_size=3),
)


def same_json(one, other):
    """Equality of JSON: unlike Python's, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def turned(value):
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        return {name: turned(item) for name, item in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(scopes, scopes)
def test_keys_are_equal_if_and_only_if_scopes_are(one, other):
    equal = all(same_json(getattr(one, field.name), getattr(other, field.name)) for field in fields(Scope))
    assert (partition_key(one) == partition_key(other)) == equal == (one == other)


@given(scopes, st.sampled_from([field.name for field in fields(Scope)]), json_values)
def test_one_other_value_is_another_key(scope, name, value):
    value = str(value) if name in ("tenant", "model", "data_version", "encoder") else value
    assume(not same_json(value, getattr(scope, name)))
    assert partition_key(replace(scope, **{name: value})) != partition_key(scope)


@given(scopes)
def test_the_order_of_keys_makes_no_difference(scope):
    other = replace(scope, **{field.name: turned(getattr(scope, field.name)) for field in fields(Scope)})
    assert partition_key(other) == partition_key(scope)
    assert hash(other) == hash(scope)


@given(json_values, json_values)
def test_a_value_cannot_move_to_another_field(value, other):
    assume(not same_json(value, other))
    one = Scope(tenant="t", model="m", system_prompt=value, prefix=other)
    assert partition_key(one) != partition_key(Scope(tenant="t", model="m", system_prompt=other, prefix=value))


def test_numbers_are_equal_as_numbers_and_texts_as_code_points():
    def key(value):
        return partition_key(Scope(tenant="t", model="m", sampling=value))

    assert key(1) == key(1.0)
    assert key(0) == key(-0.0)
    assert len({key(value) for value in (1, True, "1", [1], 1.5, None, "null", {}, [])}) == 9
    assert key("\ud83d\ude00") != key("😀")
    assert key("a\u0301") != key("\u00e1")
    assert key(("a", 1)) == key(["a", 1])


def test_the_key_is_what_it_was():
    """A cache on disk is found again only as long as this holds."""
    scope = Scope(tenant="acme", model="m", sampling={"temperature": 0.5}, prefix=[{"role": "user"}])
    expected = (
        '{"data_version":"","encoder":"","model":"m","prefix":[{"role":"user"}],"response_format":null,'
        '"sampling":{"temperature":0.5},"schema":"halve.scope/1","system_prompt":null,"tenant":"acme","tools":null}'
    )
    import hashlib

    assert partition_key(scope) == hashlib.sha256(expected.encode()).digest()


@pytest.mark.parametrize("value", [{1: 2}, {"a": {None: 1}}, object(), {"a": {1, 2}}])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(InvalidParameterError, match=r"of the scope must be (JSON|a text)\. Got"):
        partition_key(Scope(tenant="t", model="m", tools=value))


REQUEST = {
    "model": "gpt",
    "temperature": 0.2,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "How do I reset it?"},
    ],
}


def key_of(request, **options):
    split = from_chat_request(request, **{"tenant": "acme", **options})
    assert split is not None
    return partition_key(split[0])


def test_a_request_is_cut_at_its_last_text():
    scope, text = from_chat_request(REQUEST, tenant="acme", data_version="v1", encoder="minilm")
    assert text == "How do I reset it?"
    assert scope == Scope(
        tenant="acme",
        model="gpt",
        system_prompt=[{"role": "system", "content": "Be brief."}],
        sampling={"temperature": 0.2},
        prefix=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user"}],
        data_version="v1",
        encoder="minilm",
    )


def with_last(content, **more):
    return {**REQUEST, "messages": [*REQUEST["messages"][:-1], {"role": "user", "content": content, **more}]}


def test_only_the_last_text_may_vary():
    assert key_of(with_last("Something else")) == key_of(REQUEST)
    assert key_of(with_last([{"type": "text", "text": "As a part"}])) == key_of(REQUEST)
    messages = REQUEST["messages"]
    others = [
        {**REQUEST, "model": "other"},
        {**REQUEST, "temperature": 0.3},
        {**REQUEST, "seed": 1},
        {**REQUEST, "a_field_of_tomorrow": "x"},
        {**REQUEST, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {**REQUEST, "response_format": {"type": "json_object"}},
        {**REQUEST, "messages": messages[1:]},
        {**REQUEST, "messages": [{"role": "system", "content": "Be kind."}, *messages[1:]]},
        {**REQUEST, "messages": [{"role": "developer", "content": "Be brief."}, *messages[1:]]},
        {**REQUEST, "messages": [messages[0], messages[3]]},
        {**REQUEST, "messages": [*messages[:2], {"role": "assistant", "content": "Hey"}, messages[3]]},
        with_last("Hi", name="Ann"),
        with_last([{"type": "text", "text": "Read this."}, {"type": "text", "text": "How do I reset it?"}]),
        with_last([{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]),
    ]
    keys = [key_of(other) for other in others] + [key_of(REQUEST)]
    keys += [key_of(REQUEST, tenant="other"), key_of(REQUEST, data_version="v2"), key_of(REQUEST, encoder="e5")]
    assert len(set(keys)) == len(others) + 4


@pytest.mark.parametrize("name", sorted(IGNORED_FIELDS))
def test_how_a_request_is_sent_makes_no_difference(name):
    assert key_of({**REQUEST, name: {"any": "thing"}}) == key_of(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"audio": {"voice": "ash"}},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"function_call": {"name": "f"}},
        {"model": None},
        {"messages": [{"role": ["system"], "content": "x"}, {"role": "user", "content": "hi"}]},
        {"messages": []},
        {"messages": "Hi"},
        {"messages": ["Hi"]},
        {"messages": [{"role": "assistant", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "42", "tool_call_id": "1"}]},
        {"messages": [{"role": "system", "content": "Be brief."}]},
        {"messages": [{"role": "user", "content": "  \n"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": ["Hi"]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_what_must_not_be_cached_has_no_scope(change):
    assert from_chat_request({**REQUEST, **change}, tenant="acme") is None


@pytest.mark.parametrize(
    "change", [{"n": 1}, {"n": None}, {"logprobs": False}, {"tool_choice": "auto"}, {"modalities": ["text"]}]
)
def test_what_asks_for_one_text_has_a_scope(change):
    assert from_chat_request({**REQUEST, **change}, tenant="acme") is not None


def answered(**message):
    message = {"role": "assistant", "content": "Hold the button.", **message}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }


def test_a_complete_text_may_be_stored():
    assert cacheable(answered())
    assert cacheable(answered(tool_calls=None, refusal=None))
    assert cacheable(answered(tool_calls=[]))


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"error": {"message": "overloaded"}},
        {**answered(), "error": {"message": "late"}},
        {"choices": []},
        {"choices": ["text"]},
        {"choices": [*answered()["choices"], *answered()["choices"]]},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "stop", "delta": {"content": "Hold"}}]},
        *(
            {"choices": [{**answered()["choices"][0], "finish_reason": reason}]}
            for reason in (None, "length", "tool_calls", "content_filter", "function_call")
        ),
        answered(content=None),
        answered(content=" "),
        answered(content=[{"type": "text", "text": "Hi"}]),
        answered(tool_calls=[{"id": "1"}]),
        answered(function_call={"name": "f"}),
        answered(refusal="I cannot."),
        answered(audio={"id": "1"}),
    ],
    ids=lambda response: json.dumps(response)[-60:],
)
def test_errors_parts_and_tool_calls_may_not(response):
    assert not cacheable(response)
    with pytest.raises(InvalidParameterError, match="response must be one complete text"):
        content_digest(response)


def test_equal_contents_are_equal_answers():
    assert content_digest(answered()) == content_digest({**answered(), "id": "2", "usage": {"total_tokens": 7}})
    assert content_digest(answered()) != content_digest(answered(content="Hold the button!"))


def test_random_requests_share_a_key_only_if_they_share_all_but_the_text():
    """20,000 pairs of requests from few parts, so that many scopes are equal."""
    rng = random.Random(5)

    def request():
        parts = [rng.choice(["a", "b"]) for _ in range(rng.randint(0, 2))]
        messages = [{"role": rng.choice(["system", "user", "assistant"]), "content": part} for part in parts]
        return {
            "model": rng.choice(["m", "n"]),
            "messages": [*messages, {"role": "user", "content": rng.choice(["q", "r", "s"])}],
            **rng.choice([{}, {"temperature": 0}, {"temperature": 0.0}, {"temperature": 1}]),
            **rng.choice([{}, {"tools": [{"name": "f"}]}]),
        }

    def rest(request):
        return {**request, "messages": request["messages"][:-1]}

    for _ in range(20_000):
        one, other = request(), request()
        assert (key_of(one) == key_of(other)) == (rest(one) == rest(other))

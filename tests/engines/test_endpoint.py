import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.engines.endpoint import Endpoint, load_endpoint, save_endpoint
from halve.errors import InvalidParameterError, ModelError

GIVEN = {
    "schema": "halve.endpoint/1",
    "url": "http://127.0.0.1:8080/v1",
    "model": "m",
    "labels": ["positive", "negative"],
    "prompt": "Which one?\n{labels}\n\n{payload}",
}
ENDPOINT = Endpoint(**{**GIVEN, "labels": ("positive", "negative")})


@pytest.fixture
def load(tmp_path):
    def load(content):
        path = tmp_path / "endpoint.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_endpoint(path, owner="teacher")

    return load


def test_the_file_of_five_fields_is_enough(load):
    assert load(GIVEN) == ENDPOINT


def test_saving_and_loading_gives_the_same_endpoint(tmp_path):
    endpoint = replace(
        ENDPOINT,
        mode="sampled",
        codes=("yes", "no"),
        system="Be brief.",
        seed=None,
        extra={"cache_prompt": False, "nested": {"a": [1]}},
        api_key_environment="OPENAI_API_KEY",
    )
    save_endpoint(endpoint, tmp_path / "e.json")
    assert load_endpoint(tmp_path / "e.json", owner="teacher") == endpoint


def test_the_prompt_is_filled_in_one_pass():
    (message,) = ENDPOINT.messages("a {labels} text {payload} {0}")
    assert message["role"] == "user"
    assert message["content"] == "Which one?\nA: positive\nB: negative\n\na {labels} text {payload} {0}"


def test_labels_may_stand_in_the_system_message():
    endpoint = replace(ENDPOINT, prompt="{payload}", system="One of:\n{labels}")
    assert endpoint.messages("x") == [
        {"role": "system", "content": "One of:\nA: positive\nB: negative"},
        {"role": "user", "content": "x"},
    ]


@given(st.integers(2, 400))
def test_default_codes_are_distinct_and_none_begins_another(n):
    codes = replace(ENDPOINT, labels=tuple(f"label {k}" for k in range(n))).label_codes  # Its own check would raise.
    assert len(set(codes)) == n
    assert len({len(code) for code in codes}) == 1


def test_letters_up_to_26_and_numbers_of_one_width_above():
    labels = tuple(map(str, range(150)))
    assert replace(ENDPOINT, labels=labels[:26]).label_codes[-1] == "Z"
    assert replace(ENDPOINT, labels=labels[:27]).label_codes[::26] == ("01", "27")
    assert replace(ENDPOINT, labels=labels).label_codes[::149] == ("001", "150")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": "halve.endpoint/2"}, "schema must be 'halve.endpoint/1'. Got 'halve.endpoint/2'"),
        (
            {"url": "127.0.0.1:8080"},
            "url must be http:// or https://, a host, and a path without .* Got '127.0.0.1:8080'",
        ),
        ({"url": "http:///v1"}, "url must be http"),
        ({"url": "http://host:port/v1"}, "url must be http"),
        ({"url": "http://host/v1?key=1"}, "url must be http"),
        ({"url": "http://host/v1\r\nX: y"}, "url must be http"),
        ({"labels": ["one"]}, "labels must be at least 2 names, all different"),
        ({"labels": ["one", "one"]}, "labels must be at least 2 names, all different"),
        ({"labels": ["one", " "]}, "labels must be at least 2 names, all different"),
        ({"codes": ["a"]}, "codes must be one per label, 2. Got 1"),
        ({"codes": ["1", "10"]}, r"codes must be such that none begins another. Got \['1', '10'\]"),
        ({"codes": ["a", "b c"]}, r"codes must be texts without blanks. Got \['b c'\]"),
        ({"codes": ["a", ""]}, "codes must be texts without blanks"),
        ({"prompt": "{labels}"}, "prompt must be a text that holds {payload}"),
        ({"prompt": "{payload}"}, "prompt must be a text that holds {labels}, here or in system"),
        ({"mode": "guess"}, "mode must be 'log_probabilities' or 'sampled'. Got 'guess'"),
        ({"top_log_probabilities": 1}, r"top_log_probabilities must be in \[2, 10000\]. Got 1"),
        ({"samples": 0}, r"samples must be in \[1, 10000\]. Got 0"),
        ({"temperature": 0}, r"temperature must be in \(0, 2\]. Got 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1. Got 0"),
        ({"timeout_seconds": 0}, "timeout_seconds must be positive. Got 0"),
        ({"retries": -1}, r"retries must be in \[0, 20\]. Got -1"),
        ({"backoff_seconds": -1}, "backoff_seconds must be at least 0. Got -1"),
        ({"concurrency": 0}, r"concurrency must be in \[1, 256\]. Got 0"),
        ({"extra": {"seed": 1}}, r"extra must be without .* Got \['seed'\]"),
        ({"smaples": 3}, "smaples is not a known key. Did you mean 'samples'?"),
    ],
)
def test_a_broken_rule_is_named_with_its_file_and_model(load, change, sentence):
    with pytest.raises(ModelError, match=rf"endpoint\.json of model 'teacher': {sentence}"):
        load({**GIVEN, **change})


@pytest.mark.parametrize("text", ["{", "", "[1, 2", "\ufeff{}"])
def test_a_file_that_is_no_json_is_refused(load, text):
    with pytest.raises(ModelError, match=r"endpoint\.json of model 'teacher' must be JSON. Got: "):
        load(text)


def test_a_document_of_another_kind_is_refused(load):
    with pytest.raises(ModelError, match=r"endpoint\.json of model 'teacher'"):
        load([1, 2])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none\.json of model 'teacher' cannot be read: No such file"):
        load_endpoint(tmp_path / "none.json", owner="teacher")


@pytest.mark.parametrize(
    "change",
    [
        {"api_key_environment": "sk-verysecret"},
        {"api_key_environment": "VERYSECRET"},
        {"api_key": "verysecret"},
        {"url": "http://user:verysecret@127.0.0.1/v1"},
    ],
)
def test_a_key_written_into_the_file_is_refused_and_not_repeated(load, change):
    with pytest.raises(ModelError) as caught:
        load({**GIVEN, **change})
    assert "verysecret" not in str(caught.value).lower()
    assert "Got" in str(caught.value) or "not a known key" in str(caught.value)


@pytest.mark.parametrize("name", ["API_KEY", "OPENAI_API_KEY", "MY_2ND_API_KEY"])
def test_names_of_keys(name):
    assert replace(ENDPOINT, api_key_environment=name).api_key_environment == name


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PATH", ""])
def test_a_file_cannot_ask_for_other_secrets(name):
    with pytest.raises(InvalidParameterError, match="ends in API_KEY"):
        replace(ENDPOINT, api_key_environment=name)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.7", "vllm", "vllm.svc.cluster.local", "localhost"])
def test_a_key_may_travel_in_the_private_network(host):
    url = f"http://{host}:8000/v1/"
    endpoint = replace(ENDPOINT, url=url, api_key_environment="API_KEY")
    assert endpoint.chat_url == f"http://{host}:8000/v1/chat/completions"


@pytest.mark.parametrize("host", ["api.example.com", "8.8.8.8"])
def test_a_key_goes_over_the_internet_by_https_only(host):
    with pytest.raises(InvalidParameterError, match="url must be https where a key is sent over the internet"):
        replace(ENDPOINT, url=f"http://{host}/v1", api_key_environment="API_KEY")
    assert replace(ENDPOINT, url=f"https://{host}/v1", api_key_environment="API_KEY").url.startswith("https")
    assert replace(ENDPOINT, url=f"http://{host}/v1").api_key_environment is None

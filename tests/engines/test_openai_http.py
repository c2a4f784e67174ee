import socket
import time
from dataclasses import replace

import numpy as np
import pytest

from halve.core import Model, TensorAnswerer
from halve.engines.endpoint import Endpoint, save_endpoint
from halve.engines.openai_http import OpenAiHttpEngine, request_of
from halve.errors import AnswerError, InvalidParameterError, ModelError

SECRET = "sk-verysecret"
LABELS = ("good", "bad", "so-so")


@pytest.fixture
def load(server, tmp_path, model_file, request):
    """Load an endpoint that differs from the plainest one in these fields."""

    def load(**fields):
        given = {
            "url": server.url,
            "model": "m",
            "labels": LABELS,
            "prompt": "{labels}\n{payload}",
            "backoff_seconds": 0,
        }
        save_endpoint(Endpoint(**{**given, **fields}), tmp_path / "endpoint.json")
        model = Model(name="teacher", engine="openai_http", files=(model_file(tmp_path / "endpoint.json"),))
        answerer = OpenAiHttpEngine().load(model, threads=1, folder=tmp_path)
        request.addfinalizer(answerer.close)
        return answerer

    return load


@pytest.fixture
def tokens_reply(replies):
    return replies[0]


@pytest.fixture
def text_reply(replies):
    return replies[1]


def payload_of(body):
    return body["messages"][-1]["content"].rpartition("\n")[2]


def test_log_probabilities_by_hand(load, server, tokens_reply):
    told = {"x": {"A": 0.6, "B": 0.2, "X": 0.1}, "y": {"C": 0.5, "B": 0.25, "A": 0.25}}
    server.script = lambda body: (200, {}, tokens_reply(told[payload_of(body)]))
    prediction = load().answer(["x", "y"])
    # x: C is missing; 1 - 0.9 = 0.1 is left for it. 0.6, 0.2 and 0.1 over 0.9. y: nothing is missing, the sum is 1.
    np.testing.assert_allclose(prediction.probabilities, [[6 / 9, 2 / 9, 1 / 9], [0.25, 0.25, 0.5]], rtol=1e-5)
    assert prediction.answers.tolist() == [0, 2]
    assert (prediction.answers.dtype, prediction.probabilities.dtype) == (np.int64, np.float32)


def test_samples_by_hand(load, server, text_reply):
    told = ["A", "C: so-so", "what?", "A"]
    server.script = lambda body: (200, {}, text_reply(told[body["seed"] - 7]))
    prediction = load(mode="sampled", samples=4, seed=7, temperature=0.7, max_tokens=5).answer(["x"])
    # A, C, A: (2 + 1) / (3 + 3), (0 + 1) / 6, (1 + 1) / 6.
    np.testing.assert_allclose(prediction.probabilities, [[3 / 6, 1 / 6, 2 / 6]], rtol=1e-6)
    assert prediction.answers.tolist() == [0]
    assert [body["seed"] for body in server.bodies] == [7, 8, 9, 10]
    assert all((body["temperature"], body["max_tokens"]) == (0.7, 5) for body in server.bodies)


def test_what_is_asked(load, server, tokens_reply):
    server.script = lambda _: (200, {}, tokens_reply({"A": 0.5}))
    load(top_log_probabilities=5, system="Be brief.", extra={"cache_prompt": False}).answer(["a {labels}"])
    path, _, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "A: good\nB: bad\nC: so-so\na {labels}"},
        ],
        "max_tokens": 1,
        "temperature": 1.0,
        "logprobs": True,
        "top_logprobs": 5,
        "seed": 0,
        "cache_prompt": False,
    }


def test_without_a_seed_none_is_sent():
    endpoint = Endpoint(url="http://h", model="m", labels=LABELS, prompt="{labels}{payload}", seed=None)
    assert "seed" not in request_of("x", endpoint)
    assert "logprobs" not in request_of("x", replace(endpoint, mode="sampled"))


def test_answers_keep_their_order_under_concurrency(load, server, tokens_reply):
    def script(body):
        number = int(payload_of(body))
        time.sleep(number * 7 % 5 / 1000)  # Later requests overtake earlier ones.
        return 200, {}, tokens_reply({"ABC"[number % 3]: 0.5 + number / 200})

    server.script = script
    numbers = np.arange(60)
    prediction = load(concurrency=8).answer([str(number) for number in numbers])
    np.testing.assert_array_equal(prediction.answers, numbers % 3)
    assert len(set(prediction.probabilities.max(axis=1).tolist())) == 60
    assert 1 < server.connections <= 8 + 1


def test_an_empty_batch_asks_nothing(load, server):
    prediction = load().answer([])
    assert prediction.probabilities.shape == (0, 3)
    assert server.requests == []


def test_a_busy_server_is_asked_again(load, server, tokens_reply):
    rest = [(429, {"Retry-After": "0"}, b""), (200, {}, tokens_reply({"B": 0.9}))]
    server.script = lambda _: rest.pop(0)
    assert load(backoff_seconds=1e9).answer(["x"]).answers.tolist() == [1]


def test_exhausted_retries_name_the_input_the_address_and_the_cause(load, server, tokens_reply):
    server.script = lambda body: (
        (500, {}, b"out of memory") if payload_of(body) == "bad" else (200, {}, tokens_reply({"A": 0.9}))
    )
    answerer = load(retries=1)
    said = r"HTTP 500 .*: out of memory \(attempt 2 of 2\)"
    rule = rf"model 'teacher' failed on input 2: {server.url}/chat/completions: {said}"
    with pytest.raises(AnswerError, match=rule):
        answerer.answer(["x", "y", "bad", "z", "bad"])
    assert len(answerer.answer(["x"])) == 1


def test_the_first_input_at_fault_is_named_whichever_fails_first(load, server, tokens_reply):
    def script(body):
        text = payload_of(body)
        if text == "slow":
            time.sleep(0.03)
        return (400, {}, b"no") if text in ("slow", "fast") else (200, {}, tokens_reply({"A": 0.9}))

    server.script = script
    with pytest.raises(AnswerError) as caught:
        load(concurrency=4).answer(["x", "slow", "fast", "fast", *"abcdefgh"])
    assert caught.value.index == 1


def test_a_failure_cancels_what_was_not_asked_yet(load, server):
    server.script = lambda _: (400, {}, b"no")
    with pytest.raises(AnswerError, match="input 0"):
        load(concurrency=1).answer(["x"] * 2000)
    assert len(server.requests) < 2000


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (b"{", "its reply must be JSON. Got {"),
        ({"ok": True}, r"its reply must be a chat completion with choices\[0\]"),
        ({"choices": [{"logprobs": {"content": []}}]}, r"must hold content\[0\]"),
    ],
)
def test_a_reply_of_another_form_names_the_input(load, server, reply, cause):
    server.script = lambda _: (200, {}, reply)
    with pytest.raises(AnswerError, match=f"model 'teacher' failed on input 0: http.*{cause}"):
        load().answer(["x"])


def test_an_input_without_any_label_is_named_or_gets_equal_probabilities(load, server, tokens_reply):
    server.script = lambda body: (200, {}, tokens_reply({"A" if payload_of(body) == "x" else "Hm": 0.9}))
    with pytest.raises(AnswerError, match=r"input 1: .*no code of a label is among the 1 most probable tokens"):
        load().answer(["x", "y"])
    prediction = load(on_no_label="uniform").answer(["x", "y"])
    np.testing.assert_allclose(prediction.probabilities[1], 1 / 3, rtol=1e-6)


def test_replies_that_name_no_label_name_the_input(load, server, text_reply):
    server.script = lambda _: (200, {}, text_reply("I am not sure"))
    with pytest.raises(AnswerError, match=r"input 0: .*no reply of 2 names a label \(the first: 'I am not sure'\)"):
        load(mode="sampled", samples=2).answer(["x"])


def test_a_server_without_log_probabilities_is_the_models_fault(load, server, text_reply):
    server.script = lambda _: (200, {}, text_reply("A"))
    with pytest.raises(
        ModelError, match=r"the server of model 'teacher' must answer at .*Got: .*use mode sampled\.$"
    ) as caught:
        load().answer(["x"])
    assert not isinstance(caught.value, AnswerError)


def test_a_silent_server_names_the_input(load, server):
    server.script = lambda _: server.released.wait() and (200, {}, {})
    with pytest.raises(AnswerError, match=r"failed on input 0: .*no reply in time"):
        load(timeout_seconds=0.05, retries=0).answer(["x"])


@pytest.mark.parametrize(("status", "said"), [(401, "the key was refused"), (404, "no such model")])
def test_what_meets_every_input_is_the_models_fault(load, server, status, said):
    server.script = lambda _: (status, {}, {"error": {"message": "no such model"}})
    rule = (
        rf"the server of model 'teacher' must answer at {server.url}/chat/completions. Got: HTTP {status} .*: {said}\.$"
    )
    with pytest.raises(ModelError, match=rule) as caught:
        load().answer(["x"])
    assert not isinstance(caught.value, AnswerError)


def test_an_unreachable_server_is_refused_on_loading(load):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        ModelError, match=rf"must answer at http://127.0.0.1:{port}/v1/chat/completions. Got: Connection refused\."
    ):
        load(url=f"http://127.0.0.1:{port}/v1/")


def test_a_bad_endpoint_file_is_refused_with_its_rule(tmp_path, model_file):
    (tmp_path / "endpoint.json").write_text('{"url": 3}')
    model = Model(name="teacher", engine="openai_http", files=(model_file(tmp_path / "endpoint.json"),))
    with pytest.raises(
        ModelError, match=r"endpoint\.json of model 'teacher' has \d problems:(.|\n)*labels must be given"
    ):
        OpenAiHttpEngine().load(model, threads=1, folder=tmp_path)


def test_threads_must_be_at_least_one(tmp_path):
    with pytest.raises(InvalidParameterError, match="threads must be at least 1"):
        OpenAiHttpEngine().load(Model(name="m", engine="openai_http"), threads=0, folder=tmp_path)


def test_the_key_comes_from_the_environment(load, server, tokens_reply, monkeypatch, tmp_path):
    monkeypatch.setenv("HALVE_TEST_API_KEY", f"{SECRET}\n")
    server.script = lambda _: (200, {}, tokens_reply({"A": 0.9}))
    answerer = load(api_key_environment="HALVE_TEST_API_KEY")
    answerer.answer(["x"])
    assert server.requests[0][1]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in (tmp_path / "endpoint.json").read_text()
    assert SECRET not in repr(answerer)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_that_is_not_set_is_named(load, monkeypatch, value):
    monkeypatch.delenv("HALVE_TEST_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("HALVE_TEST_API_KEY", value)
    with pytest.raises(
        ModelError, match=r"variable HALVE_TEST_API_KEY must hold the API key of model 'teacher'. It is not set"
    ):
        load(api_key_environment="HALVE_TEST_API_KEY")


@pytest.mark.parametrize("key", [f"{SECRET}\r\nX-Other: 1", f"{SECRET} {SECRET}", f"{SECRET}\u00fc"])
def test_a_malformed_key_is_refused_and_not_repeated(load, monkeypatch, key):
    monkeypatch.setenv("HALVE_TEST_API_KEY", key)
    with pytest.raises(ModelError, match="HALVE_TEST_API_KEY must be printable ASCII without blanks") as caught:
        load(api_key_environment="HALVE_TEST_API_KEY")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_no_error_repeats_the_key(load, server, monkeypatch, caplog, status):
    monkeypatch.setenv("HALVE_TEST_API_KEY", SECRET)
    server.script = lambda _: (status, {}, {"error": {"message": f"Incorrect key {SECRET}"}})
    with caplog.at_level(0), pytest.raises(ModelError) as caught:
        load(api_key_environment="HALVE_TEST_API_KEY", retries=1).answer(["x"])
    assert SECRET not in f"{caught.value} {caught.value.__cause__} {caplog.text}"


def test_a_token_that_is_the_key_is_not_repeated(load, server, tokens_reply, monkeypatch):
    monkeypatch.setenv("HALVE_TEST_API_KEY", SECRET)
    server.script = lambda _: (200, {}, tokens_reply({SECRET: 0.9}))
    with pytest.raises(AnswerError, match=r"\*\*\*") as caught:
        load(api_key_environment="HALVE_TEST_API_KEY").answer(["x"])
    assert SECRET not in str(caught.value)


def test_answering_after_closing_says_so(load):
    answerer = load()
    assert not isinstance(answerer, TensorAnswerer)
    answerer.close()
    answerer.close()
    with pytest.raises(ModelError, match="model 'teacher' is closed"):
        answerer.answer(["x"])


REVIEWS = ("A lovely, moving film.", "Dull, long and badly acted.", "I enjoyed every minute.", "A waste of time.")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["log_probabilities", "sampled"])
def test_a_real_server_answers(load, llama_url, mode):
    fields = {
        "url": llama_url,
        "labels": ("positive", "negative"),
        "prompt": "{payload}\n\nIs this review positive or negative?\n{labels}\nAnswer with one letter.",
        "extra": {"cache_prompt": False},  # Reused prefixes change the last bits.
        "concurrency": 1,
    }
    answerer = load(mode=mode, samples=2, on_no_label="uniform", **fields)
    first, again = answerer.answer(REVIEWS), answerer.answer(REVIEWS)
    assert first.probabilities.shape == (4, 2)
    np.testing.assert_allclose(first.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(again.probabilities, first.probabilities, atol=1e-5)
    if mode == "log_probabilities":
        assert len(set(first.probabilities[:, 0].tolist())) == 4  # They came back, and depend on the text.

import json
import threading
import time
from contextlib import ExitStack

import httpx2
import numpy as np
import pytest

from halve.assembly.cache_replay import replay_cache
from halve.assembly.chat_cache import ChatCache, read_rule
from halve.errors import ConfigError, InvalidParameterError
from halve.serving.chat import ChatApp, ChatServer, Upstream
from halve.techniques.inference.caching.semantic import SingleFlight
from halve.testing.chat import completion
from halve.testing.word_service import questions, write_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log, an encoder, and the policy that was proved on them."""
    root = tmp_path_factory.mktemp("chat")
    write_log(root)
    found = replay_cache(root / "log.jsonl", encoder=str(root / "encoder"), precision=0.8, policy=root / "policy.json")
    assert found.enable
    return root


@pytest.fixture
def open_cache(folder):
    """Return a function that opens caches, which are closed at the end of the test."""
    with ExitStack() as closing:

        def start(*, semantic=True, **options):
            found = ChatCache(rule=read_rule(folder / "policy.json") if semantic else None, **options)
            closing.callback(found.close)
            return found

        yield start


def request(text, **fields):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def asked(cache, text, *, tenant="us", **fields):
    question = cache.question(request(text, **fields), tenant=tenant)
    return question, cache.find(question)


def test_a_near_question_gets_the_stored_answer_as_often_right_as_promised(open_cache):
    cache = open_cache(usd_per_answer=0.01)
    asked_first, stored = zip(*questions(400, seed=6), strict=True), set()
    texts, topics = questions(200, seed=8)
    rates = {}
    for entries in (5, 100, 400):
        while len(stored) < entries:
            text, topic = next(asked_first)
            stored.add(text)
            cache.remember(cache.question(request(text), tenant="us"), completion(f"topic {topic}"), None)
        found = [asked(cache, text)[1] for text in texts]
        hits = [(each, topic) for each, topic in zip(found, topics, strict=True) if each.how == "semantic"]
        rates[entries] = len(hits) / len(texts)
        assert all(0 < each.probability <= 1 and each.vector.shape == (24,) for each, _ in hits)
        right = sum(each.completion == completion(f"topic {topic}") for each, topic in hits)
        assert right >= 0.8 * len(hits), f"with {entries} entries"
    assert rates[5] == 0 < 0.2 < rates[100] < rates[400], "careful while it fills"
    repeated = asked(cache, questions(200, seed=6)[0][0])[1]
    assert (repeated.how, repeated.probability) == ("exact", 1.0)


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "them"},
        {"model": "n"},
        {"temperature": 0.3},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what of my trip"}]},
    ],
)
def test_no_answer_crosses_to_another_partition(open_cache, other):
    cache = open_cache()
    question, found = asked(cache, "what of my trip")
    cache.remember(question, completion("a trip"), found.vector)
    assert asked(cache, "what of my trip")[1].how == "exact"
    assert asked(cache, "what of my trip", **other)[1].how == "miss"


def test_without_a_policy_identical_texts_alone_are_hits(open_cache):
    cache = open_cache(semantic=False)
    question, found = asked(cache, "today soon now what about the flight please")
    assert (found.how, found.vector, cache.near) == ("miss", None, None)
    cache.remember(question, completion("a flight"), None)
    assert asked(cache, "today soon now what about the flight please")[1].completion == completion("a flight")
    assert asked(cache, "soon today now what about the flight please")[1].how == "miss"


def test_answers_outlive_the_process_and_another_version_starts_afresh(open_cache, tmp_path):
    location = str(tmp_path / "answers.sqlite")
    one = open_cache(location=location)
    one.remember(one.question(request("what of my trip"), tenant="us"), completion("a trip"), None)
    one.close()
    assert asked(open_cache(location=location), "what of my trip")[1].how == "exact"
    assert asked(open_cache(location=location, data_version="2"), "what of my trip")[1].how == "miss"
    with pytest.raises(InvalidParameterError, match="encoder must be"):
        open_cache(semantic=False, location=location)


def test_answers_grow_old_and_few_are_kept(open_cache):
    cache = open_cache(semantic=False, most_entries=2, ttl_seconds=1e-3)
    for text in ("one", "two", "three"):
        cache.remember(cache.question(request(text), tenant="us"), completion(text), None)
    time.sleep(0.01)
    assert asked(cache, "three")[1].how == "miss"
    kept = open_cache(semantic=False, most_entries=2)
    for text in ("one", "two", "three"):
        kept.remember(kept.question(request(text), tenant="us"), completion(text), None)
    assert [asked(kept, text)[1].how for text in ("one", "two", "three")] == ["miss", "exact", "exact"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"usd_per_answer": -1}, "usd_per_answer must be at least 0 and finite. Got -1"),
        ({"ttl_seconds": 0}, "ttl_seconds must be above 0"),
        ({"most_entries": 0}, "limits.entries must be at least 1"),
    ],
)
def test_bad_choices_are_named(open_cache, options, match):
    with pytest.raises(InvalidParameterError, match=match):
        open_cache(**options)


def test_a_policy_is_read_with_the_encoder_it_was_fitted_with(folder, tmp_path):
    from halve.techniques.compression.quantization import export_onnx
    from halve.testing.word_service import encoder, write_tokenizer

    other = tmp_path / "other"
    other.mkdir()
    write_tokenizer(other / "tokenizer.json")
    module = encoder()
    for weights in module.parameters():
        weights.data += 0.1
    ids = np.ones((2, 4), dtype=np.int64)
    export_onnx(module, {"input_ids": ids, "attention_mask": ids}, other / "model.onnx")
    with pytest.raises(InvalidParameterError, match="encoder must be the one that the policy was fitted with"):
        read_rule(folder / "policy.json", encoder=str(other))
    read_rule(folder / "policy.json", encoder=str(folder / "encoder")).encoder.close()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda policy: {}, "it must be a policy of halve cache replay"),
        (lambda policy: [], "it must be a policy of halve cache replay"),
        (lambda policy: {**policy, "encoder": None}, "it must be a policy of halve cache replay"),
        (lambda policy: {**policy, "threshold": 2.0}, "do not enable the cache"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(folder, tmp_path, change, match):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(change(json.loads((folder / "policy.json").read_text()))))
    with pytest.raises(ConfigError, match=match):
        read_rule(path)
    with pytest.raises(ConfigError, match="it could not be read"):
        read_rule(tmp_path / "missing.json")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_in_front_of_a_real_model(open_cache, llama_url, stream):
    """llama.cpp behind; what it streamed is stored, and served again as a stream and whole."""
    cache = open_cache()
    server = ChatServer(
        ChatApp(upstream=Upstream(llama_url), memory=cache, flights=SingleFlight(near=cache.near)),
        host="127.0.0.1",
        port=0,
    )
    ready = threading.Event()
    thread = threading.Thread(target=server.run, kwargs={"ready": lambda port: ready.set()})
    thread.start()
    assert ready.wait(20)
    body = {**request("what about the hotel please"), "max_tokens": 64, "stream": stream, "temperature": 0}
    body["messages"].insert(0, {"role": "system", "content": "Answer with one word."})
    try:
        url, headers = f"http://127.0.0.1:{server.port}", {"authorization": "Bearer k"}
        with httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            first = client.post("/v1/chat/completions", json=body)
            assert (first.status_code, first.headers["x-halve-cache"]) == (200, "miss")
            for _ in range(200):
                again = client.post("/v1/chat/completions", json={**body, "stream": not stream})
                if again.headers["x-halve-cache"] == "exact":
                    break
            assert again.headers["x-halve-cache"] == "exact"
            assert client.get("/v1/models").headers["x-halve-cache"] == "passed"
    finally:
        server.stop()
        thread.join(20)
    whole, streamed = (again, first) if stream else (first, again)
    said = whole.json()["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    pieces = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    assert "".join(pieces) == said != ""

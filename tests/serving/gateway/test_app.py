"""The protocol over real HTTP: uvicorn on a loopback port, judged by the Open Inference Protocol's own schema."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from halve.measure.replay import encode_bodies, replay
from halve.serving.gateway import InputSpec, Limits
from halve.testing.fakes import FakeAnswerer, label_of

INPUT = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [3]}


@pytest.fixture
def conforms():
    """Return a check of a reply against a component of the protocol's OpenAPI document."""
    import yaml
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    if "HALVE_DATA" not in os.environ:
        pytest.skip("HALVE_DATA is unset: the Open Inference Protocol's schema is not here")
    document = yaml.safe_load(
        (Path(os.environ["HALVE_DATA"]) / "crd_schemas/oip_v2_dataplane.openapi.yaml").read_text()
    )
    # The document names a type "bytes", which JSON Schema does not have: nothing in JSON is of that type.
    checker = Draft202012Validator.TYPE_CHECKER.redefine("bytes", lambda checker, value: False)
    validator = extend(Draft202012Validator, type_checker=checker)

    def check(name, reply):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator(schema).validate(reply)
        known = set(document["components"]["schemas"][name]["properties"])
        assert set(reply) <= known

    return check


@pytest.mark.data
def test_every_reply_conforms_to_the_protocol(make_chain, serving, conforms):
    client = serving(make_chain({"a": FakeAnswerer, "b": FakeAnswerer}, labels=tuple("abcdefghij")))
    for path, schema in {"/v2": "MetadataServerResponse", "/v2/models/demo": "MetadataModelResponse"}.items():
        status, reply = client.send("GET", path)
        assert status == 200
        conforms(schema, reply)
    every = [{"name": name} for name in ("label", "probabilities", "stage")]
    for body in ({"inputs": [INPUT]}, {"inputs": [INPUT], "id": "x", "outputs": every, "parameters": {"a": 1}}):
        conforms("InferenceRequest", body)
        status, reply = client.infer(body)
        assert status == 200
        conforms("InferenceResponse", reply)
    for status, reply in (client.infer({}), client.send("POST", "/v2/models/other/infer", {"inputs": [INPUT]})):
        assert status in (400, 404)
        conforms("InferenceErrorResponse", reply)


def test_metadata_says_what_goes_in_and_comes_out(make_chain, serving):
    chain = make_chain(labels=tuple("abcdefghij"), takes=InputSpec(datatype="FP32", shape=(28, 28)))
    _, reply = serving(chain).send("GET", "/v2/models/demo")
    assert reply["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 28, 28]}]
    assert reply["outputs"][1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}
    assert reply["parameters"] == {"labels": list("abcdefghij"), "stages": ["only"]}


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/healthz", {"live": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/demo/ready", {"ready": True}),
    ],
)
def test_health(make_chain, serving, path, page):
    assert serving(make_chain()).send("GET", path) == (200, page)


def test_a_batch_of_items_is_answered_in_order_with_names_and_id(make_chain, serving):
    client = serving(make_chain(labels=tuple("abcdefghij")))
    tensor = {"name": "input", "shape": [3, 2], "datatype": "UINT8", "data": [[7, 0], [1, 0], [4, 0]]}
    status, reply = client.infer({"id": "mine", "inputs": [tensor]})
    assert status == 200
    assert reply["id"] == "mine"
    assert reply["outputs"] == [
        {"name": "label", "datatype": "INT64", "shape": [3], "data": [7, 1, 4], "parameters": {"names": [*"hbe"]}},
        {"name": "stage", "datatype": "BYTES", "shape": [3], "data": ["only"] * 3},
    ]


def test_text_in_text_out(make_chain, serving):
    client = serving(make_chain({"only": lambda: FakeAnswerer(classes=3, labels=("none", "one", "two"))}))
    tensor = {"name": "input", "shape": [3], "datatype": "BYTES", "data": ["é", "ab", ""]}
    _, reply = client.infer({"inputs": [tensor], "outputs": [{"name": "label"}]})
    assert reply["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [3], "data": ["one", "two", "none"]}]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "/v2/models/demo/infer", b"not json", 400, "the request body must be JSON."),
        ("POST", "/v2/models/demo/infer", {"inputs": [INPUT | {"shape": [1, 2]}]}, 400, "must be 2 values"),
        ("POST", "/v2/models/other/infer", {"inputs": [INPUT]}, 404, "the model must be 'demo'. Got 'other'."),
        ("GET", "/v2/models/other/ready", None, 404, "the model must be 'demo'. Got 'other'."),
        ("GET", "/v2/models/demo/versions/1", None, 404, "Got '/v2/models/demo/versions/1'."),
        ("GET", "/nothing", None, 404, "the path must be one of /healthz, "),
        ("GET", "/v2/models/demo/infer", None, 405, "the method of /v2/models/demo/infer must be POST. Got 'GET'."),
        ("POST", "/healthz", b"", 405, "the method of /healthz must be GET. Got 'POST'."),
        ("DELETE", "/metrics", None, 405, "the method of /metrics must be GET. Got 'DELETE'."),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(make_chain, serving, method, path, body, status, sentence):
    got, reply = serving(make_chain()).send(method, path, body)
    assert got == status
    assert list(reply) == ["error"]
    assert sentence in reply["error"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_long_is_refused_and_the_server_goes_on(make_chain, serving, announced):
    client = serving(make_chain(), limits=Limits(body_bytes=1000))
    body = b"x" * 70_000
    if announced:
        status, reply = client.send("POST", "/v2/models/demo/infer", body)
    else:
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        status, reply = client.send("POST", "/v2/models/demo/infer", chunk, {"Transfer-Encoding": "chunked"})
    assert status == 413
    assert reply == {"error": "the request body must be at most 1000 bytes. Got more."}
    assert client.ask(3) == {"label": [3], "stage": ["only"]}


def test_a_model_that_fails_on_one_input_fails_that_request_only(make_chain, serving):
    client = serving(make_chain({"only": lambda: FakeAnswerer(breaks_on=lambda payload: payload[0] == 4)}))
    status, reply = client.infer({"inputs": [INPUT | {"data": [4]}]})
    assert status == 500
    assert reply == {"error": "model 'only' failed on input 0: ValueError: it was told to break"}
    assert client.ask(3) == {"label": [3], "stage": ["only"]}


def test_five_hundred_at_once_each_get_their_own_answer(make_chain, serving):
    makers = {
        "small": lambda: FakeAnswerer(classes=1000, confidence=lambda payload: 0.9 if payload[0] % 3 else 0.2),
        "large": lambda: FakeAnswerer(classes=1000, seconds_per_batch=0.001),
    }
    chain = make_chain(makers, max_batch_size=16, replicas=2)
    client = serving(chain)
    payloads = [np.array([value, 0], dtype=np.float32) for value in range(500)]
    record = replay(
        client.url,
        model_name="demo",
        arrival_seconds=np.zeros(500),
        bodies=encode_bodies(payloads),
        max_connections=500,
    )
    assert record.failed == 0
    assert record.most_connections > 1
    assert record.labels.tolist() == [label_of(payload, 1000) for payload in payloads]
    assert list(record.stages) == ["small" if value % 3 else "large" for value in range(500)]
    asked = Counter(float(p[0]) for fake in chain.load.loaded["small"] for batch in fake.batches for p in batch)
    assert asked == Counter(float(value) for value in range(500))
    assert max(size for fake in chain.load.loaded["small"] for size in fake.batch_sizes) <= 16


def test_an_overloaded_server_says_so(make_chain, serving):
    client = serving(
        make_chain({"only": lambda: FakeAnswerer(seconds_per_batch=0.2)}), limits=Limits(in_flight_items=2)
    )
    body = encode_bodies([np.zeros(1, dtype=np.float32)])[0]
    record = replay(client.url, model_name="demo", arrival_seconds=np.zeros(5), bodies=[body] * 5)
    assert record.failures == {"HTTP 503": 3}
    tensor = INPUT | {"shape": [3, 1], "data": [1, 2, 3]}
    status, reply = client.infer({"inputs": [tensor]})
    assert status == 503
    assert reply["error"].startswith("the gateway is overloaded: items in flight must be at most 2. Got 0 and 3 more.")

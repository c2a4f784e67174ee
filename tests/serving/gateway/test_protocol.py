import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from halve.errors import InvalidParameterError
from halve.measure.replay import encode_bodies
from halve.serving.gateway import Answered, InputSpec
from halve.serving.gateway.protocol import parse_request, render_response

ANY = InputSpec()


def request(*, drop=(), **changes):
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]} | changes
    return {"inputs": [{key: value for key, value in tensor.items() if key not in drop}]}


def parse(body, takes=ANY):
    return parse_request(body if isinstance(body, bytes) else json.dumps(body).encode(), takes=takes)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=3, max_side=5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_a_tensor_survives_the_wire_bit_for_bit(array):
    (payload,) = parse(encode_bodies([array])[0]).payloads
    assert payload.dtype == np.float32
    assert np.array_equal(payload, array)


@given(st.text())
def test_a_text_survives_the_wire(text):
    assert parse(encode_bodies([text])[0]).payloads == [text]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "UINT8", "INT64"])
@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_numbers_flat_or_nested_become_float32_items(datatype, data):
    payloads = parse(request(datatype=datatype, data=data)).payloads
    assert [payload.tolist() for payload in payloads] == [[1, 2], [3, 4]]
    assert {payload.dtype for payload in payloads} == {np.dtype(np.float32)}


def test_deeper_shapes_nest_deeper():
    payloads = parse(request(shape=[1, 2, 1], data=[[[5], [6]]])).payloads
    assert [payload.tolist() for payload in payloads] == [[[5], [6]]]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_texts_are_items(shape):
    assert parse(request(datatype="BYTES", shape=shape, data=["a", "b"])).payloads == ["a", "b"]


def test_id_and_outputs_are_read():
    read = parse(request() | {"id": "7", "outputs": [{"name": "probabilities"}]})
    assert read.id == "7"
    assert read.outputs == {"probabilities"}
    assert parse(request()).outputs == {"label", "stage"}


BAD = [
    (b"{", r"the request body must be JSON. Got '"),
    (b"", r"the request body must be JSON"),
    ([1], r"the request body must be a JSON object. Got 'a list'"),
    (request() | {"id": 7}, r"id must be a string. Got 'a number'"),
    ({}, r"inputs must be a list of exactly 1 tensor. Got 'nothing'"),
    ({"inputs": []}, r"inputs must be a list of exactly 1 tensor. Got 0"),
    ({"inputs": [1]}, r"inputs must be a list of exactly 1 tensor"),
    (request(drop=["name"]), r"name of the input must be a string. Got 'nothing'"),
    (request(datatype="FP16"), r"datatype of the input must be one of FP32, FP64, .*Got 'FP16'"),
    (request(drop=["datatype"]), r"datatype of the input must be one of"),
    (request(shape=[]), r"shape of the input must be a list of positive integers, the batch first. Got \[\]"),
    (request(shape=[2, 0]), r"shape of the input must be a list of positive integers.*Got \[2, 0\]"),
    (request(shape=[2, True]), r"shape of the input must be a list of positive integers"),
    (request(shape="2"), r"shape of the input must be a list of positive integers.*Got '2'"),
    (request(shape=[3, 2]), r"data of the input must be 6 values, as its shape \[3, 2\] says. Got '4 values'"),
    (request(drop=["data"]), r"data of the input must be a list. Got 'nothing'"),
    (request(data={"a": 1}), r"data of the input must be a list. Got 'an object'"),
    (request(data=[[1], [2, 3, 4]]), r"nested exactly as its shape \[2, 2\] says"),
    (request(data=[[1, 2], 3]), r"nested exactly as its shape"),
    (request(data=[[[1], [2]], [[3], [4]]]), r"nested exactly as its shape"),
    (request(data=[1, [2], 3, 4]), r"data of the input must be numbers. Got \[2\]"),
    (request(data=[1, 2, 3, "4"]), r"data of the input must be numbers. Got '4'"),
    (request(data=[1, 2, 3, None]), r"data of the input must be numbers. Got None"),
    (request(data=[1, 2, 3, 1e300]), r"data of the input must be finite in 32 bits"),
    (request(datatype="UINT8", data=[1, 2, 3, 256]), r"integers from 0 to 255 for UINT8. Got 256"),
    (request(datatype="INT64", data=[1, 2, 3, 0.5]), r"integers from -9223372036854775808 to .*Got 0.5"),
    (request(datatype="BYTES", shape=[2], data=["a", 1]), r"data of the input must be strings for BYTES. Got 1"),
    (request(datatype="BYTES", shape=[1, 2], data=["a", "b"]), r"must be \[batch\] or \[batch, 1\] for BYTES"),
    (request() | {"outputs": []}, r"outputs must be a list of at least 1 output. Got 'a list'"),
    (request() | {"outputs": [{"name": "logits"}]}, r"must be one of label, probabilities, stage. Got 'logits'"),
    (request() | {"outputs": [[]]}, r"name of an output must be one of"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "sentence"), BAD)
def test_a_malformed_request_is_refused_in_one_sentence(body, sentence):
    with pytest.raises(InvalidParameterError, match=sentence):
        parse(body)


KEYS = st.sampled_from(["inputs", "outputs", "name", "shape", "datatype", "data", "id"])
SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner))


@given(JSON)
def test_no_json_does_anything_but_parse_or_be_refused(data):
    body = data if isinstance(data, dict) else {"inputs": [data]}
    with pytest.raises(InvalidParameterError):
        parse(body)


def test_what_the_models_cannot_read_is_refused_at_the_door():
    with pytest.raises(InvalidParameterError, match=r"shape of the input must be \[batch, 3\]. Got \[2, 2\]"):
        parse(request(), InputSpec(shape=(3,)))
    with pytest.raises(InvalidParameterError, match=r"must be BYTES, since the model reads text. Got 'FP32'"):
        parse(request(), InputSpec(datatype="BYTES"))
    with pytest.raises(InvalidParameterError, match=r"must be a number type, not text. Got 'BYTES'"):
        parse(request(datatype="BYTES", shape=[1], data=["a"]), InputSpec(datatype="FP32"))
    assert len(parse(request(), InputSpec(datatype="FP32", shape=(2,))).payloads) == 2


def render(answers, labels=(), **asked):
    names = [{"name": name} for name in asked.pop("outputs", ["label", "stage"])]
    read = parse(request() | {"outputs": names} | asked)
    return json.loads(render_response(answers, read, model_name="m", labels=labels))


def test_answers_become_tensors():
    rows = [np.array([0.1, 0.9], np.float32), np.array([0.8, 0.2], np.float32)]
    answers = [Answered(1, rows[0], "small"), Answered(0, rows[1], "large")]
    reply = render(answers, ("no", "yes"), outputs=["stage", "probabilities", "label"], id="7")
    names = {"names": ["yes", "no"]}
    assert reply == {
        "model_name": "m",
        "id": "7",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0], "parameters": names},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.8, 0.2]},
            {"name": "stage", "datatype": "BYTES", "shape": [2], "data": ["small", "large"]},
        ],
    }


def test_text_answers_are_bytes_and_bear_no_names():
    reply = render([Answered("yes", None, "m")], ("a", "b"))
    assert reply["outputs"][0] == {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["yes"]}
    assert "id" not in reply


def test_probabilities_that_nobody_has_cannot_be_asked_for():
    with pytest.raises(InvalidParameterError, match="without probabilities, since 'small' gives none"):
        render([Answered(1, None, "small")], outputs=["probabilities"])

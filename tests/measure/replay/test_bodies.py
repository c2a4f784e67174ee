import json

import numpy as np
import pytest

from halve.errors import MissingExtraError
from halve.measure.replay import encode_bodies
from halve.measure.replay.bodies import Answer, read_answer


def test_a_tensor_becomes_one_item_with_a_batch_axis():
    (body,) = encode_bodies([np.array([[0.5, 1], [2, 3]], dtype=np.float64)])
    assert json.loads(body) == {
        "inputs": [{"name": "input", "shape": [1, 2, 2], "datatype": "FP32", "data": [0.5, 1, 2, 3]}],
        "outputs": [{"name": "label"}, {"name": "stage"}],
    }


def test_a_text_becomes_bytes():
    (body,) = encode_bodies(["naïve"], outputs=["label"])
    assert json.loads(body) == {
        "inputs": [{"name": "input", "shape": [1], "datatype": "BYTES", "data": ["naïve"]}],
        "outputs": [{"name": "label"}],
    }


def test_a_view_that_is_not_contiguous_is_encoded_in_its_own_order():
    (body,) = encode_bodies([np.arange(6, dtype=np.float32).reshape(2, 3).T])
    assert json.loads(body)["inputs"][0]["data"] == [0, 3, 1, 4, 2, 5]


def test_without_orjson_the_pip_command_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "orjson", None)
    with pytest.raises(MissingExtraError, match=r"replay needs orjson: pip install 'halve\[serve\]'"):
        encode_bodies(["a"])


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ({"outputs": [{"name": "label", "data": [3]}, {"name": "stage", "data": ["m"]}]}, Answer(3, "m")),
        ({"outputs": [{"name": "label", "data": ["yes"]}]}, Answer("yes", "")),
        ({"outputs": [{"name": "logits", "data": [3]}]}, None),
        ({"outputs": [{"name": "label", "data": []}]}, None),
        ({"error": "no"}, None),
        ([1], None),
    ],
)
def test_answers_are_read_or_there_are_none(reply, answer):
    assert read_answer(json.dumps(reply).encode()) == answer


def test_a_reply_that_is_not_json_holds_no_answer():
    assert read_answer(b"<html>") is None

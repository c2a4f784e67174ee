import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.packing import packed, packed_all, unpacked, unpacked_all


@given(arrays(st.sampled_from([np.float32, np.float64, np.int32, np.int64]), array_shapes(min_dims=0, min_side=0)))
def test_the_way_back_is_bit_for_bit(array):
    again = unpacked(json.loads(json.dumps(packed(array))))
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()


def test_named_arrays():
    again = unpacked_all(packed_all({"a": np.arange(3), "b": np.zeros((2, 1))}))
    assert again["a"].tolist() == [0, 1, 2]
    assert again["b"].shape == (2, 1)
    again["a"][0] = 5  # what is read may be written to


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([object()]), np.array([True])])
def test_other_types_are_refused(array):
    with pytest.raises(InvalidParameterError, match="array must be of a type in <f4"):
        packed(array)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"type": "|O"}, "of a type in"),
        ({"shape": [3]}, r"\(3,\) numbers of 8 bytes. Got 16"),
        ({"shape": [-1]}, "of a type in"),
        ({"shape": None}, "an object with type, shape and base64"),
        ({"base64": "?"}, "an object with type, shape and base64"),
        ({"base64": 5}, "an object with type, shape and base64"),
    ],
)
def test_damage_is_refused(change, match):
    with pytest.raises(InvalidParameterError, match=match):
        unpacked(packed(np.zeros(2)) | change)


def test_what_is_no_object_is_refused():
    with pytest.raises(InvalidParameterError, match=r"arrays must be an object. Got 'list'"):
        unpacked_all([])
    with pytest.raises(InvalidParameterError, match="an object with type"):
        unpacked_all({"a": []})

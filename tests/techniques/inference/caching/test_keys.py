import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching import exact_key

tensors = st.sampled_from([np.float32, np.float64, np.int64]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)


def test_the_key_is_the_documented_hash():
    assert exact_key("für") == hashlib.sha256("text:für".encode()).digest()
    values = np.array([[1.0, 2.0]], dtype="<f4")
    assert exact_key(values) == hashlib.sha256(b"tensor:<f4:(1, 2):" + values.tobytes()).digest()


@given(tensors, tensors)
def test_tensors_share_a_key_if_and_only_if_they_are_the_same_bytes(one, other):
    same = (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert (exact_key(one) == exact_key(other)) == same


@given(tensors)
def test_a_copy_has_the_same_key_in_any_memory_order(values):
    assert exact_key(values) == exact_key(values.copy()) == exact_key(np.asfortranarray(values).reshape(values.shape))


@given(st.text(), st.text())
def test_texts_share_a_key_if_and_only_if_they_are_equal(one, other):
    assert (exact_key(one) == exact_key(other)) == (one == other)


def test_a_text_never_equals_a_tensor():
    values = np.frombuffer(b"abcd", dtype=np.uint8)
    text = f"{values.dtype.str}:{values.shape}:abcd"
    assert len({exact_key("abcd"), exact_key(values), exact_key(text), exact_key("tensor:" + text)}) == 4


def test_shape_dtype_and_sign_of_zero_matter():
    zeros = np.zeros((2, 3), dtype=np.float32)
    others = [zeros.reshape(3, 2), zeros.view(np.int32), -zeros, zeros.astype(np.float64)]
    assert len({exact_key(values) for values in (zeros, *others)}) == 5


def test_lone_surrogates_have_a_key():
    assert exact_key("\ud800") != exact_key("\ud801")


@pytest.mark.parametrize(
    ("payload", "match"), [(np.array(["a", None]), "ndarray of object"), ([1.0], "numeric array. Got <class 'list'>")]
)
def test_what_has_no_bytes_is_refused(payload, match):
    with pytest.raises(InvalidParameterError, match=match):
        exact_key(payload)

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from halve.core.hashing import payload_digest, payload_hash

tensors = arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(-5, 5, width=32))
payloads = st.one_of(tensors, st.text(max_size=8))


def test_a_digest_is_what_its_docstring_says():
    # SHA-256 of "length of salt:salt:", then the kind, the shape, and little-endian bytes.
    assert payload_digest("a") == hashlib.sha256(b"0::text:a").digest()
    tensor = np.array([[1.0, -2.0]], np.float32)
    expected = hashlib.sha256(b"4:part:float32(1, 2):" + tensor.astype("<f4").tobytes()).digest()
    assert payload_digest(tensor, salt="part") == expected


@given(tensors)
def test_equal_tensors_have_equal_digests_however_they_lie_in_memory(tensor):
    for same in (tensor.copy(), np.asfortranarray(tensor), tensor.astype(">f4"), tensor.astype(np.float64)):
        assert payload_digest(same) == payload_digest(tensor)
    assert len(payload_digest(tensor)) == 32


@given(payloads, payloads)
def test_different_payloads_have_different_digests(one, two):
    if isinstance(one, str) or isinstance(two, str):
        same = isinstance(one, str) and isinstance(two, str) and one == two
    else:
        same = one.shape == two.shape and np.array_equal(one, two)
    assert (payload_digest(one) == payload_digest(two)) == same


def test_minus_zero_is_zero_and_shapes_count():
    assert payload_digest(np.array([-0.0], np.float32)) == payload_digest(np.array([0.0], np.float32))
    flat = np.arange(4, dtype=np.float32)
    assert payload_digest(flat) != payload_digest(flat.reshape(2, 2))
    assert payload_digest("\ud800") != payload_digest("?"), "half of a pair is a text too"


@given(payloads, st.text(max_size=5), st.text(max_size=5))
def test_salts_give_digests_that_have_nothing_in_common(payload, one, two):
    assert (payload_digest(payload, salt=one) == payload_digest(payload, salt=two)) == (one == two)


@given(st.lists(payloads, max_size=4))
def test_the_hash_of_many_goes_by_their_order(many):
    digest = hashlib.sha256(b"".join(payload_digest(each) for each in many)).hexdigest()
    assert payload_hash(many) == digest


@pytest.mark.parametrize(("one", "two"), [(["a", "b"], ["b", "a"]), (["ab"], ["a", "b"]), (["a"], ["a", "a"])])
def test_order_borders_and_repeats_count(one, two):
    assert payload_hash(one) != payload_hash(two)

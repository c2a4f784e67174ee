from dataclasses import replace

import pytest

from halve.core import EncoderFingerprint
from halve.errors import InvalidParameterError

ONE = EncoderFingerprint(model_sha256="ab", dimension=8, pooling="mean", is_normalized=True, max_tokens=16)


@pytest.mark.parametrize(
    "change",
    [{"model_sha256": "cd"}, {"dimension": 9}, {"pooling": "cls"}, {"is_normalized": False}, {"max_tokens": 17}],
)
def test_whatever_changes_a_vector_changes_the_digest(change):
    assert replace(ONE, **change).digest != ONE.digest


def test_the_digest_is_of_what_it_says():
    assert replace(ONE).digest == ONE.digest
    assert len(ONE.digest) == 64


def test_a_vector_has_at_least_one_number():
    with pytest.raises(InvalidParameterError, match=r"dimension must be at least 1\. Got 0"):
        replace(ONE, dimension=0)

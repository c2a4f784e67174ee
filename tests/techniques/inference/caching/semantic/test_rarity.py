import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.rarity import Rarity


def test_rarity_by_hand():
    rarity = Rarity.of_texts(["the cat", "the dog", "the the"], bits=16)
    assert rarity("the") == pytest.approx(np.log(4 / 4) / np.log(5))
    assert rarity("cat") == pytest.approx(np.log(4 / 2) / np.log(5), rel=1e-6)
    assert rarity("never") == pytest.approx(np.log(4) / np.log(5), rel=1e-6)
    assert rarity("the") < rarity("cat") < rarity("never") <= 1


def test_without_texts_function_words_count_less():
    assert (Rarity()("the"), Rarity()("cat")) == (0.1, 1.0)
    assert Rarity.of_texts([])("cat") == 0.0  # log 1: nothing is known


def test_the_table_holds_no_words_and_gives_the_same_again():
    rarity = Rarity.of_texts(["a secret", "b"], bits=6)
    again = Rarity(rarity.weights)
    assert rarity.weights.shape == (64,)
    assert again("secret") == rarity("secret")


@pytest.mark.parametrize("weights", [np.zeros(3, np.float32), np.zeros((4, 4), np.float32), np.zeros(8, np.float32)])
def test_a_table_of_another_size_is_refused(weights):
    with pytest.raises(InvalidParameterError, match="weights must be of shape"):
        Rarity(weights)


def test_bits_have_a_range():
    with pytest.raises(InvalidParameterError, match=r"bits must be 4 to 20. Got 21"):
        Rarity.of_texts([], bits=21)

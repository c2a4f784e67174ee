"""How rare a word is, learned from texts and kept without the words: a table of numbers that hashes point into."""

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.lexicon import FUNCTION_WORDS
from halve.techniques.inference.caching.semantic.wording import wording

_LEAST_BITS, _MOST_BITS = 4, 20


class Rarity:
    """Weight of a word, in [0, 1]: 1 for one never seen, near 0 for one in every text.

    Inverse document frequency, log((n + 1) / (texts with the word + 1)) / log(n + 1), over n texts; words are told
    apart by a hash, so a collision makes a rare word look as frequent as its neighbour. Sparck Jones 1972, Journal
    of Documentation 28(1). Without texts: 0.1 for function words, 1 for others.

    Args:
        weights: float32 (2^bits,), in [0, 1]; None without texts.
    """

    def __init__(self, weights: NDArray[np.float32] | None = None) -> None:
        self.weights = weights
        self._table: list[float] | None = None
        if weights is not None:
            size = len(weights)
            if weights.ndim != 1 or size & (size - 1) or not 1 << _LEAST_BITS <= size <= 1 << _MOST_BITS:
                raise InvalidParameterError("weights", rule="of shape (2^4 to 2^20,)", value=weights.shape)
            self._table = weights.astype(np.float64).tolist()  # a list is read faster than an array, one at a time

    @classmethod
    def of_texts(cls, texts: Iterable[str], *, bits: int = 16) -> "Rarity":
        """Return the rarity of words in texts.

        Args:
            texts: Each counts once, repeats too.
            bits: Logarithm of the table's size, 4 to 20.

        Raises:
            InvalidParameterError: If bits is out of range.
        """
        if not _LEAST_BITS <= bits <= _MOST_BITS:
            raise InvalidParameterError("bits", rule=f"{_LEAST_BITS} to {_MOST_BITS}", value=bits)
        counts, n = np.zeros(1 << bits), 0
        for text in texts:
            n += 1
            places = {_place(word, 1 << bits) for word in wording(text).known}
            counts[list(places)] += 1
        weights = np.log((n + 1) / (counts + 1)) / np.log(n + 2)
        return cls(weights.astype(np.float32))

    def __call__(self, word: str) -> float:
        """Return the weight of a stem."""
        if self._table is None:
            return 0.1 if word in FUNCTION_WORDS else 1.0
        return self._table[_place(word, len(self._table))]


def _place(word: str, size: int) -> int:
    return zlib.crc32(word.encode()) & (size - 1)

"""Hashed word pairs, triples and more: ids of n-grams over word-piece ids, in plain integer arithmetic.

An n-gram is n pieces at fixed distances, written as offsets from its first: (0, 1) is a pair of neighbours, (0, 2) a
pair with one piece between, (0, 1, 2) a triple. Its row in a table of a given size is a hash; n-grams that hash to
the same row share it, which training evens out as long as the frequent ones are fewer than the rows.

Everything is int64 tensor arithmetic below 2^62, so that the same module exports to ONNX with the same rows.

Source: Weinberger et al. 2009, arXiv:0902.2206 (feature hashing); Joulin et al. 2017, arXiv:1607.01759 (bags of
hashed n-grams).
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from halve.errors import InvalidParameterError

if TYPE_CHECKING:
    import torch

NGRAMS = ((0, 1), (0, 2), (0, 1, 2))
"""Pairs of neighbours, pairs over one piece, triples."""

_FACTOR, _MODULUS = 1_000_003, 2**31 - 1


def check_ngrams(ngrams: tuple[tuple[int, ...], ...]) -> None:
    """Refuse offsets that are no n-grams.

    Raises:
        InvalidParameterError: If one does not begin with 0 or does not rise.
    """
    for offsets in ngrams:
        rises = all(left < right for left, right in pairwise(offsets))
        if len(offsets) < 2 or offsets[0] != 0 or not rises:
            raise InvalidParameterError("ngrams", rule="offsets that begin with 0 and rise", value=offsets)


def ngram_rows(
    ids: "torch.Tensor", mask: "torch.Tensor", offsets: tuple[int, ...], *, rows: int
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the table row of the n-gram that begins at each token, and which of them lie inside the text.

    Args:
        ids: int64 (batch, tokens), in [0, 2^31).
        mask: int64 (batch, tokens), 1 for tokens that are there; they come first.
        offsets: Of the n-gram.
        rows: Of the table, in [1, 2^31).

    Returns:
        int64 (batch, tokens) in [0, rows), and int64 (batch, tokens) of 0 and 1.
    """
    from torch.nn.functional import pad

    reach, tokens = offsets[-1], ids.shape[1]
    ids, mask = pad(ids, (0, reach)), pad(mask, (0, reach))
    # The offsets themselves go into the hash, so that (a, b) as neighbours and over a gap are two n-grams.
    state = ids[:, :tokens] + _FACTOR * sum(offset * 31**place for place, offset in enumerate(offsets))
    for offset in offsets[1:]:
        state = (state * _FACTOR + ids[:, offset : offset + tokens]) % _MODULUS
    return state * _FACTOR % _MODULUS % rows, mask[:, :tokens] * mask[:, reach : reach + tokens]

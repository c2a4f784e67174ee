import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation.ngrams import NGRAMS, check_ngrams, ngram_rows


def test_only_ngrams_that_lie_inside_the_text_are_there():
    ids, mask = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    assert ngram_rows(ids, mask, (0, 1), rows=100)[1].tolist() == [[1, 1, 0, 0, 0]]
    assert ngram_rows(ids, mask, (0, 2), rows=100)[1].tolist() == [[1, 0, 0, 0, 0]]
    assert ngram_rows(ids, mask, (0, 1, 3), rows=100)[1].tolist() == [[0, 0, 0, 0, 0]]


def test_the_row_of_a_pair_by_hand():
    # F = 1000003, M = 2^31 - 1. The offsets (0, 1) add F * (0 + 31) = 31000093 to the first id, 2: 31000095.
    # (31000095 * F + 3) mod M, times F mod M, mod 1000.
    factor, modulus = 1_000_003, 2**31 - 1
    expected = ((31_000_095 * factor + 3) % modulus) * factor % modulus % 1000
    rows, _ = ngram_rows(torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.int64), (0, 1), rows=1000)
    assert rows[0, 0].item() == expected


@given(
    ids=st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=8),
    rows=st.integers(1, 2**20),
    offsets=st.sampled_from(NGRAMS),
)
def test_rows_are_in_the_table_and_follow_from_the_ids_alone(ids, rows, offsets):
    tensor, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)
    found, inside = ngram_rows(tensor, mask, offsets, rows=rows)
    assert found.min() >= 0
    assert found.max() < rows
    padded, padded_mask = (torch.nn.functional.pad(one, (0, 3)) for one in (tensor, mask))
    again, again_inside = ngram_rows(padded, padded_mask, offsets, rows=rows)
    assert torch.equal(found[inside == 1], again[again_inside == 1])


def test_order_distance_and_length_make_another_ngram():
    mask = torch.ones(1, 3, dtype=torch.int64)
    first = {
        ngram_rows(torch.tensor([ids]), mask, offsets, rows=2**31 - 1)[0][0, 0].item()
        for ids, offsets in (([1, 2, 2], (0, 1)), ([2, 1, 1], (0, 1)), ([1, 2, 2], (0, 2)), ([1, 2, 2], (0, 1, 2)))
    }
    assert len(first) == 4


@pytest.mark.parametrize("offsets", [(0,), (1, 2), (0, 2, 1), (0, 0)])
def test_offsets_begin_with_0_and_rise(offsets):
    with pytest.raises(InvalidParameterError, match="ngrams must be offsets that begin with 0 and rise"):
        check_ngrams((offsets,))

"""What the mixture benchmark computes around its runs: steps, inputs, the paired interval, the sizes."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import torch

from benchmarks import mixture_of_experts as bench


def queries(rows=500, longest=12):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 50, (rows, longest))
    return torch.from_numpy(np.where(np.arange(longest) < rng.integers(2, longest + 1, (rows, 1)), ids, 0))


def test_an_epoch_sees_every_query_once_in_batches_of_like_length():
    ids = queries()
    steps = bench.batches(ids, bench.Recovery(batch_size=20), 0)
    assert sorted(torch.cat(steps).tolist()) == list(range(500))
    padding = sum(int((bench.lengths(ids[rows]).max() - bench.lengths(ids[rows])).sum()) for rows in steps)
    assert padding < 0.1 * int(bench.lengths(ids).sum())
    again = bench.batches(ids, bench.Recovery(batch_size=20), 0)
    assert all(torch.equal(a, b) for a, b in zip(steps, again, strict=True))
    assert not torch.equal(steps[0], bench.batches(ids, bench.Recovery(batch_size=20, seed=1), 0)[0])


def test_fewer_rows_are_fewer_steps():
    steps = bench.batches(queries(), bench.Recovery(batch_size=20, rows=100), 0)
    assert sum(map(len, steps)) == 100


def test_inputs_are_cut_to_the_longest_query():
    found = bench.named(torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0]]))
    assert found["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert found["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_the_drop_averages_seeds_first_and_is_paired_by_query():
    dense = np.array([True, True, True, False])
    found = bench.drop(dense, [np.array([True, False, True, False]), np.array([True, True, True, True])])
    # Per query: 0, 100 / 2, 0, -100 / 2.
    assert found.median == pytest.approx(0)
    assert found.high == pytest.approx(1.96 * np.std([0, 50, 0, -50], ddof=1) / 2)


def test_the_sizes_are_at_most_half_of_the_dense_operations():
    left = int(1536 * (1 - bench.SHARED_SHARE)) // bench.EXPERTS * bench.EXPERTS
    neurons = 1536 - left + bench.ACTIVE * left // bench.EXPERTS
    # An operation of the router is one multiplication per expert and input; a neuron has two weights per feature.
    assert (neurons * 2 * 384 + bench.EXPERTS * 384) / (1536 * 2 * 384) <= 0.5


def test_the_code_that_matters_is_in_the_hash():
    assert len(bench.code_hash()) == 16
    assert bench.code_hash() == bench.code_hash()

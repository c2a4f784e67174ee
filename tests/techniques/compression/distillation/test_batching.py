import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import predicted_logits
from halve.techniques.compression.distillation.batching import batches, cut, rows_of


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_tokens_are_cut_to_the_longest_row_rounded_up_to_8(lengths):
    mask = (torch.arange(40) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": mask * 7, "attention_mask": mask, "weights": torch.ones(len(lengths), 3)}
    done = cut(batch)
    assert done["input_ids"].shape == done["attention_mask"].shape == (len(lengths), max(8, -(-max(lengths) // 8) * 8))
    assert done["attention_mask"].sum() == mask.sum()
    assert done["weights"].shape == (len(lengths), 3)


def test_inputs_without_a_mask_are_left_alone():
    batch = {"images": torch.zeros(2, 9)}
    assert cut(batch) is batch


def test_logits_of_all_rows_are_those_of_evaluation_mode():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9)).train()
    inputs = {"points": np.random.default_rng(0).standard_normal((600, 3)).astype(np.float32)}
    logits = predicted_logits(module, inputs)
    assert module.training
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(inputs["points"])).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert [len(batch["points"]) for batch in batches(inputs, 250)] == [250, 250, 100]


def test_rows_must_be_there_and_as_many_everywhere():
    assert rows_of({"a": np.zeros(3), "b": np.zeros((3, 2))}, np.zeros(3, np.int64)) == 3
    for inputs in ({}, {"a": np.zeros((0, 2))}):
        with pytest.raises(InvalidParameterError, match="inputs must be at least one row"):
            rows_of(inputs)
    with pytest.raises(InvalidParameterError, match="inputs must be all of one length"):
        rows_of({"a": np.zeros(3), "b": np.zeros(2)})

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import linear_inputs


def test_products_are_sums_over_all_vectors_whatever_the_batch():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(np.float32)
    found = linear_inputs(module, {"x": inputs}, batch_rows=3)
    vectors = inputs.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found["0"], vectors.T @ vectors, rtol=1e-12)
    hidden = torch.relu(module[0](torch.from_numpy(inputs))).detach().flatten(0, -2).double()
    torch.testing.assert_close(found["2"], hidden.T @ hidden, rtol=1e-5, atol=1e-5)


def test_the_module_stays_in_its_mode_without_hooks():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    linear_inputs(module, {"x": np.ones((1, 2), np.float32)})
    assert module.training
    assert not module[0]._forward_hooks


def test_what_cannot_be_is_named():
    module = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(InvalidParameterError, match="at least one row"):
        linear_inputs(module, {"x": np.ones((0, 2), np.float32)})
    with pytest.raises(InvalidParameterError, match="batch_rows"):
        linear_inputs(module, {"x": np.ones((1, 2), np.float32)}, batch_rows=0)
    with pytest.raises(ModelError, match="failed"):
        linear_inputs(module, {"x": np.ones((1, 3), np.float32)})
    with pytest.raises(ModelError, match="no linear layer"):
        linear_inputs(nn.ReLU(), {"x": np.ones((1, 3), np.float32)})

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.mixture_of_experts.accounting import account
from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.convert import convert
from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts


def mixture(**changes):
    torch.manual_seed(0)
    sizes = {"inputs": 4, "outputs": 4, "experts": 256, "active": 8, "neurons": 2}
    return nn.Sequential(MixtureOfExperts(MixtureConfig(**{**sizes, **changes}))).eval()


INPUTS = {"input": np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)}


def test_8_of_256_experts_are_3_percent_of_the_compute_and_all_of_the_memory():
    found = account(mixture(), INPUTS)
    # 8 / 256 = 0.03125.
    assert found.active_experts_ratio == 0.03125
    assert (found.active_flops - found.router_flops) / found.dense_flops == 0.03125
    # Every expert lies in memory: 256 experts of 4 x 2 + 2 + 2 x 4 + 4 numbers, 4 bytes each, beside the router's
    # 4 x 256 + 256 and the bias of 4.
    assert found.expert_parameters == 256 * 22
    assert found.memory_bytes == 4 * (256 * 22 + 1280 + 4)
    assert found.memory_ratio > 1


def test_counts_by_hand():
    found = account(mixture(experts=4, active=1, shared_neurons=3), INPUTS)
    # Parameters of an expert: 22. Router: 4 x 4 + 4. Shared: 3 x 4 + 3 + 4 x 3. Bias: 4.
    assert found.total_parameters == 4 * 22 + 20 + 27 + 4
    assert found.active_parameters == 22 + 20 + 27 + 4
    # Per token: an expert 2 x (8 + 8) = 32, the shared one 2 x 24 = 48, the router 2 x 16 = 32.
    assert found.dense_flops == 10 * (4 * 32 + 48)
    assert found.active_flops == 10 * (32 + 48 + 32)
    assert found.router_flops == 10 * 32
    assert found.active_flops_ratio == 112 / 176
    assert (found.tokens, found.dropped) == (10, 0)
    # Dense it would have no router (20 numbers) and no biases of experts (16).
    assert found.dense_memory_bytes == found.memory_bytes - 4 * 36


def test_what_was_dropped_was_not_computed():
    found = account(mixture(experts=4, active=2, capacity_factor=0.5), INPUTS)
    # An expert takes ceil(0.5 * 10 * 2 / 4) = 3 tokens.
    assert found.dropped >= 8
    assert found.active_flops == (20 - found.dropped) * 32 + 10 * 32


def test_converting_adds_the_router_and_saves_no_memory(sequence, rows):
    found = account(convert(sequence, rows, experts=4, active=1).module, rows)
    dense = sum(parameter.numel() for parameter in sequence.parameters())
    assert found.dense_memory_bytes == 4 * dense
    assert found.memory_ratio > 1
    assert found.active_flops_ratio == pytest.approx(0.25 + 2 * 12 * 4 / (2 * 24 * 16))


def test_what_cannot_be_accounted_is_named(sequence, rows):
    with pytest.raises(ModelError, match="mixture"):
        account(sequence, rows)
    with pytest.raises(InvalidParameterError, match="at least one row"):
        account(mixture(), {"input": np.zeros((0, 4), dtype=np.float32)})
    with pytest.raises(InvalidParameterError, match="evaluation mode"):
        account(mixture().train(), INPUTS)

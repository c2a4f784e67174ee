import copy

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def dense_network():
    """float32 (batch, 16) -> logits (batch, 5), with a batch norm whose statistics are those of no batch."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(32, 32),
        nn.Tanh(),
        nn.Linear(32, 5),
    )
    unsettle(network)
    return network.eval()


@pytest.fixture(scope="session")
def convolutional(residual):
    """The residual network, its batch norm unsettled."""
    network = copy.deepcopy(residual)
    unsettle(network)
    return network.eval()


@pytest.fixture(scope="session")
def cases(dense_network, convolutional, encoder):
    """The three architectures, each with 96 real inputs."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 11, (96, 1))
    return {
        "dense": (dense_network, {"input": rng.standard_normal((96, 16)).astype(np.float32)}),
        "convolutional": (convolutional, {"input": rng.standard_normal((96, 1, 8, 8)).astype(np.float32)}),
        "encoder": (
            encoder,
            {
                "input_ids": rng.integers(0, 50, (96, 10)),
                "attention_mask": (np.arange(10) < lengths).astype(np.int64),
            },
        ),
    }


@pytest.fixture(scope="session")
def answers(cases):
    """The fp32 answers of each network to its inputs, float32 (96, 5)."""
    found = {}
    for name, (network, inputs) in cases.items():
        with torch.no_grad():
            found[name] = network(*map(torch.from_numpy, inputs.values())).numpy()
    return found


def unsettle(network):
    """Give norms statistics, scales and shifts that are not 1 and 0; one scale is negative, one is 0."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            channels = part.num_features
            part.running_mean = torch.linspace(-0.3, 0.4, channels)
            part.running_var = torch.linspace(0.2, 1.5, channels)
            part.weight.data = torch.linspace(0.5, 1.2, channels)
            part.weight.data[:2] = torch.tensor([-0.8, 0.0])
            part.bias.data = torch.linspace(-0.2, 0.3, channels)

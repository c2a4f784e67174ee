from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

CLASSES = 6


@dataclass(frozen=True)
class Problem:
    """Points, the logits of a fixed random network for them, and labels: its answers, one in ten of them wrong."""

    inputs: dict
    log_probabilities: np.ndarray
    labels: np.ndarray


def make_problem(rows=240, seed=0):
    generator = torch.Generator().manual_seed(7)
    first, second = torch.randn(8, 32, generator=generator), torch.randn(32, CLASSES, generator=generator)
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((rows, 8)).astype(np.float32)
    logits = torch.tanh(torch.from_numpy(points) @ first) @ second
    answers = logits.log_softmax(1).numpy()
    labels = answers.argmax(1)
    wrong = rng.random(rows) < 0.1
    labels[wrong] = rng.integers(0, CLASSES, wrong.sum())
    return Problem({"points": points}, answers, labels)


def make_student(seed=0, dropout=0.1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, CLASSES))


@pytest.fixture(scope="session")
def problem():
    return make_problem()


@pytest.fixture(scope="session")
def held_out():
    return make_problem(rows=120, seed=1)


@pytest.fixture
def student_of():
    """Return what makes a small network under a seed."""
    return make_student


@pytest.fixture(scope="session")
def state_bytes():
    """Return what turns a module's state into bytes."""

    def bytes_of(module):
        return b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())

    return bytes_of


@pytest.fixture(scope="session")
def texts():
    """Word-piece ids of 64 short texts over 40 pieces; padding is 0, every text begins with 1 and ends with 2."""
    rng = np.random.default_rng(4)
    ids = np.zeros((64, 12), np.int64)
    for row in ids:
        words = rng.integers(3, 40, rng.integers(1, 11))
        row[: len(words) + 2] = [1, *words, 2]
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}

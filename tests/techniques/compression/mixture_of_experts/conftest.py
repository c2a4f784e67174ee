import numpy as np
import pytest
import torch
from torch import nn


class Encoder(nn.Module):
    """int64 (batch, tokens) twice -> logits (batch, 5), by torch's own encoder layers."""

    def __init__(self, activation="gelu"):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, activation=activation)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.unsqueeze(-1).float()
        return self.head((hidden * weights).sum(1) / weights.sum(1))


class Intermediate(nn.Module):
    """As in BERT: the first product and the activation."""

    def __init__(self):
        super().__init__()
        self.dense, self.intermediate_act_fn = nn.Linear(16, 48), nn.GELU()

    def forward(self, hidden):
        return self.intermediate_act_fn(self.dense(hidden))


class Output(nn.Module):
    """As in BERT: the second product, the residual sum and the norm."""

    def __init__(self):
        super().__init__()
        self.dense, self.LayerNorm, self.dropout = nn.Linear(48, 16), nn.LayerNorm(16), nn.Dropout(0.1)

    def forward(self, hidden, residual):
        return self.LayerNorm(self.dropout(self.dense(hidden)) + residual)


class BertLike(nn.Module):
    """float32 (batch, tokens, 16) -> logits (batch, 3)."""

    def __init__(self):
        super().__init__()
        self.intermediate, self.output = Intermediate(), Output()
        self.head = nn.Linear(16, 3)

    def forward(self, hidden):
        return self.head(self.output(self.intermediate(hidden), hidden).mean(1))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder().eval()


@pytest.fixture
def bert_like():
    torch.manual_seed(0)
    return BertLike().eval()


@pytest.fixture
def sequence():
    """float32 (batch, 12) -> logits (batch, 4)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 4)).eval()


@pytest.fixture
def tokens():
    """Inputs for the encoder, rows of several lengths."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 11, (40, 1))
    return {
        "input_ids": rng.integers(0, 50, (40, 10)),
        "attention_mask": (np.arange(10) < lengths).astype(np.int64),
    }


@pytest.fixture
def rows():
    """Inputs for the sequence."""
    return {"input": np.random.default_rng(4).standard_normal((96, 12)).astype(np.float32)}


@pytest.fixture
def hidden():
    """Inputs for the module like BERT."""
    return {"hidden": np.random.default_rng(5).standard_normal((20, 6, 16)).astype(np.float32)}

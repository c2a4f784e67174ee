import numpy as np
import pytest
import torch
from torch import nn


class Residual(nn.Module):
    """float32 (batch, channels, height, width) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, images):
        return torch.relu(images + self.body(images))


class Views(nn.Module):
    """Averages over an image and its mirror image in evaluation mode, as the vision example's teacher does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        if self.training:
            return self.network(images)
        logits = self.network(torch.cat([images, images.flip(-1)]))
        return logits.reshape(2, -1, 5).mean(0)


def randomized(module: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, so that nothing is exact by chance."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def residual_network(*, first=16, second=32, seed=0):
    """float32 (batch, 1, 8, 8) -> logits (batch, 5)."""
    torch.manual_seed(seed)
    return randomized(
        Views(
            nn.Sequential(
                nn.Conv2d(1, first, 3, padding=1, bias=False),
                nn.BatchNorm2d(first),
                nn.ReLU(),
                nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(second),
                nn.ReLU(),
                Residual(second),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(second, 5),
            )
        )
    )


def plain_network(*, hidden=24, seed=0):
    """float32 (batch, 6) -> logits (batch, 3)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 3)
    ).eval()


class Encoder(nn.Module):
    """int64 (batch, tokens) twice -> logits (batch, 5)."""

    def __init__(self, layers=2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.unsqueeze(-1).float()
        return self.head((hidden * weights).sum(1) / weights.sum(1))


def image_inputs(rows=8):
    return {"images": np.random.default_rng(0).standard_normal((rows, 1, 8, 8)).astype(np.float32)}


def vector_inputs(rows=8, width=6):
    return {"x": np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)}


def token_inputs(rows=8, tokens=10):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, tokens + 1, (rows, 1))
    return {
        "input_ids": rng.integers(0, 50, (rows, tokens)),
        "attention_mask": (np.arange(tokens) < lengths).astype(np.int64),
    }


def bert(layers=2):
    """A small BERT of transformers' own, and its inputs."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)
            self.head = nn.Linear(32, 5)

        def forward(self, input_ids, attention_mask):
            return self.head(self.bert(input_ids, attention_mask).last_hidden_state.mean(1))

    return Classifier().eval()


MODULES = {
    "residual": (residual_network, image_inputs),
    "plain": (plain_network, vector_inputs),
    "encoder": (lambda: (torch.manual_seed(0), Encoder().eval())[1], token_inputs),
    "bert": (bert, token_inputs),
}


@pytest.fixture(params=list(MODULES))
def case(request):
    """Yield a module in evaluation mode and inputs for it."""
    build, inputs = MODULES[request.param]
    return build(), inputs()


@pytest.fixture(scope="session")
def build():
    """Return the builders by name, for tests that need one of them several times."""
    return MODULES


@pytest.fixture(scope="session")
def proportional():
    """Return a timer whose seconds are a fixed cost plus the product of the two widths in an action's name."""

    def timer(actions):
        seconds = {}
        for name in actions:
            words = name.split()
            seconds[name] = [1.0 + int(words[1]) * int(words[3]) / 100]
        return seconds

    return timer

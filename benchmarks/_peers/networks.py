"""The torch modules under test, built from `network.json`; every peer's environment can import this.

Weights lie beside it in `weights.safetensors`, so that all tools start from the same numbers.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn


class IntentNetwork(nn.Module):
    """A BERT encoder, the mean of its token states at unit length, and a linear head."""

    def __init__(self, *, config: dict[str, Any], classes: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig.from_dict(config), add_pooling_layer=False)
        self.head = nn.Linear(self.bert.config.hidden_size, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
        return self.head(nn.functional.normalize(mean, dim=1))


def residual(**sizes: Any) -> nn.Module:
    from halve.demo.networks import residual_network

    return residual_network(flips=False, **sizes).network


def efficientnet(*, name: str) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(name)


def mlp(*, sizes: list[int]) -> nn.Module:
    layers: list[nn.Module] = []
    for incoming, outgoing in itertools.pairwise(sizes):
        layers += [nn.Linear(incoming, outgoing), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TokenLinear(nn.Module):
    """A linear layer on (rows, 1, features), as in a language model: exported as MatMul, which 4-bit kernels take."""

    def __init__(self, *, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.linear = nn.Linear(incoming, outgoing, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.linear(states.unsqueeze(1)).squeeze(1)


KINDS = {
    "intents": IntentNetwork,
    "residual": residual,
    "efficientnet": efficientnet,
    "mlp": mlp,
    "linear": TokenLinear,
}


def build(network: dict[str, Any]) -> nn.Module:
    """Return the untrained module that `{"kind": ..., **sizes}` describes."""
    sizes = dict(network)
    module: nn.Module = KINDS[sizes.pop("kind")](**sizes)
    return module


def load(folder: Path) -> nn.Module:
    """Return the module of a model's folder with its weights, in evaluation mode, on one thread."""
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    module = build(json.loads((folder / "network.json").read_text()))
    module.load_state_dict(load_file(folder / "weights.safetensors"))
    return module.eval()

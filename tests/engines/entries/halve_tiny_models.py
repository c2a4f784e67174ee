"""Models of a few kilobytes, built as a user's own `module:function` entries would build them."""

import torch
from torch import nn


class TinyConvolution(nn.Module):
    """float32 (batch, 1, 8, 8) -> logits (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, images):
        hidden = torch.relu(self.norm(self.convolution(images)))
        return self.head(self.dropout(nn.functional.avg_pool2d(hidden, 2).flatten(1)))


class TinyEncoder(nn.Module):
    """int64 (batch, tokens) twice -> logits (batch, 3); input and output embedding are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.tied = nn.Linear(16, 40, bias=False)
        self.tied.weight = self.embedding.weight
        self.head = nn.Linear(40, 3)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.unsqueeze(-1).float()
        return self.head(self.tied((hidden * weights).sum(1) / weights.sum(1)))


class InPlace(nn.Module):
    """Works on its input in place, as careless modules do; NaN where a pixel is above 100."""

    def forward(self, images):
        images.mul_(2)
        flat = images.flatten(1)[:, :4]
        return torch.where(flat > 200, torch.nan, flat)


def convolution():
    return TinyConvolution()


def encoder():
    return TinyEncoder()


def in_place():
    return InPlace()


def image_sums():
    """Takes images of any size."""

    class Sums(nn.Module):
        def forward(self, images):
            total = images.flatten(1).sum(1, keepdim=True)
            return torch.cat([total, -total], 1)

    return Sums()


def not_a_module():
    return {"weights": [1.0]}


def raises():
    raise RuntimeError("no weights here")


NOT_A_FUNCTION = 3

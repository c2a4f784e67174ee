"""Image classifiers for the demo and the examples: one that is too big for its job, one that is nearly enough.

Builds untrained modules; `halve.demo.training` trains them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from halve.demo.extras import require_torch

if TYPE_CHECKING:
    from torch import nn


def residual_network(*, widths: Sequence[int], blocks: int, classes: int, flips: bool) -> "nn.Module":
    """Return a residual network whose answer is the mean over several views of the image.

    A stride-1 stem of half the first width, then per width a stride-2 convolution and `blocks` residual
    blocks, then global average pooling and a linear layer. In evaluation mode the logits are averaged over
    five crops (the image, and moved by one pixel to each side) and, with `flips`, their mirror images: the
    usual test-time augmentation, and the usual way a service ends up paying several times for one answer.

    Source: He et al. 2016, arXiv:1512.03385 (residual block); Krizhevsky et al. 2012 (averaged crops).

    Args:
        widths: Channels per resolution; the resolution halves at each.
        blocks: Residual blocks per resolution, at least 1.
        classes: Number of logits.
        flips: Average over mirror images too: ten views instead of five.
    """
    require_torch()
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *_convolution(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            )
            self.norm = nn.BatchNorm2d(channels)
            self.relu = nn.ReLU()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            total: torch.Tensor = self.relu(images + self.norm(self.body(images)))
            return total

    class MeanOfViews(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor
            if self.training:
                logits = self.network(images)
                return logits
            height, width = images.shape[-2:]
            padded = nn.functional.pad(images, (1, 1, 1, 1))
            corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
            views = [padded[..., top : top + height, left : left + width] for top, left in corners]
            if flips:
                views += [view.flip(-1) for view in views]
            logits = self.network(torch.cat(views))
            return logits.reshape(len(views), -1, classes).mean(dim=0)

    layers: list[nn.Module] = [*_convolution(1, widths[0] // 2)]
    incoming = widths[0] // 2
    for outgoing in widths:
        layers += [*_convolution(incoming, outgoing, stride=2), *(Residual(outgoing) for _ in range(blocks))]
        incoming = outgoing
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(incoming, classes)]
    return MeanOfViews(nn.Sequential(*layers))


def small_network(*, widths: Sequence[int], classes: int, side_pixels: int) -> "nn.Module":
    """Return a plain convolutional network: one stride-2 convolution per width, then a linear layer."""
    require_torch()
    from torch import nn

    layers: list[nn.Module] = []
    incoming = 1
    for outgoing in widths:
        layers += _convolution(incoming, outgoing, stride=2)
        incoming, side_pixels = outgoing, (side_pixels + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(incoming * side_pixels**2, classes))


def _convolution(incoming: int, outgoing: int, *, stride: int = 1) -> "list[nn.Module]":
    from torch import nn

    convolution = nn.Conv2d(incoming, outgoing, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outgoing), nn.ReLU()]

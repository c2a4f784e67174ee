"""What every tool shares: the network, the images, and the training loop. Imports only what all environments have.

The loop and its loss are those of `halve.techniques.compression.quantization.training.train`, so that tools differ in
how they quantize and in nothing else: SGD with Nesterov momentum, warm-up and half a cosine, the fp32 network as
teacher.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WIDTHS = (16, 32, 64)
CLASSES = 10
BATCH_SIZE = 125
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
DISTILLATION = 0.7
TEMPERATURE = 2.0
FROZEN_SHARE = 0.25
CALIBRATION_ROWS = 512


def residual() -> nn.Module:
    """Return the untrained network; its teacher is the same one with the fp32 weights."""
    from halve.demo.networks import residual_network

    network: nn.Module = residual_network(widths=WIDTHS, blocks=1, classes=CLASSES, flips=False).network
    return network


def depthwise() -> nn.Module:
    """Return a small MobileNet: a stride-2 stem, then depthwise and pointwise convolutions with batch norm."""

    def convolution(incoming: int, outgoing: int, size: int, stride: int, groups: int) -> list[nn.Module]:
        layer = nn.Conv2d(incoming, outgoing, size, stride=stride, padding=size // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(outgoing), nn.ReLU()]

    layers = convolution(1, 16, 3, 2, 1)
    for incoming, outgoing, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 96, 2)):
        layers += convolution(incoming, incoming, 3, stride, incoming) + convolution(incoming, outgoing, 1, 1, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, CLASSES))


def read_job() -> tuple[Path, dict[str, Any]]:
    """Return the folder on the command line and the job in it; torch gets one thread."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    return folder, json.loads((folder / "job.json").read_text())


def load_weights(module: nn.Module, file: str) -> nn.Module:
    from safetensors.torch import load_file

    module.load_state_dict(load_file(file))
    return module.eval()


def load_images(file: str) -> dict[str, torch.Tensor]:
    """Return float32 images in [0, 1] and int64 labels, by name."""
    with np.load(file) as arrays:
        return {
            name: torch.from_numpy(array.astype(np.float32) / np.float32(255) if array.ndim == 4 else array)
            for name, array in arrays.items()
        }


def learning_rate_share(update: int, total: int) -> float:
    warm_up = max(1, total // 20)
    if update < warm_up:
        return (update + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (update - warm_up) / max(1, total - warm_up)))


def fit(
    student: nn.Module,
    teacher: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    job: dict[str, Any],
    freeze: Callable[[], None],
) -> None:
    """Train in place; `freeze` is called once, before the last FROZEN_SHARE of the updates."""
    torch.manual_seed(job["seed"])
    updates = len(labels) // BATCH_SIZE
    total = updates * job["epochs"]
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=job["learning_rate"], momentum=MOMENTUM, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: learning_rate_share(update, total))
    done = 0
    for _ in range(job["epochs"]):
        for chosen in torch.randperm(len(labels))[: updates * BATCH_SIZE].split(BATCH_SIZE):
            if done == total - round(FROZEN_SHARE * total):
                freeze()
            with torch.no_grad():
                expected = functional.log_softmax(teacher(images[chosen]) / TEMPERATURE, dim=1)
            logits = student(images[chosen])
            soft = functional.kl_div(
                functional.log_softmax(logits / TEMPERATURE, dim=1), expected, reduction="batchmean", log_target=True
            )
            hard = functional.cross_entropy(logits, labels[chosen])
            loss = (1 - DISTILLATION) * hard + DISTILLATION * TEMPERATURE**2 * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1

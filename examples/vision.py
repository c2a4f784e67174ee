"""Fashion-MNIST as a service: a residual network averaged over ten views, and a small network that is nearly as good.

Needs HALVE_DATA, the folder that holds `fashion_mnist/` with the four files of
https://github.com/zalandoresearch/fashion-mnist. Models are trained on 50,000 of the 60,000 training images. The
examples are the other 10,000, held out from training, and the 10,000 test images: 20,000 that no model has seen.
The first call trains, for some minutes; weights are kept in HALVE_CACHE, else `.cache/halve`.
"""

import gzip
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from halve.demo.networks import residual_network, small_network
from halve.demo.training import ImageRecipe, augmented, trained
from halve.errors import WorkloadError

CLASSES = 10
SIDE_PIXELS = 28
HELD_OUT = 10_000
"""The last training images in the order of the file; the file is shuffled already."""

TRANSFER = 20_000

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

TEACHER = ImageRecipe(epochs=4, peak_learning_rate=0.2, batch_size=125, shift_pixels=1, flip=True)
SMALL = ImageRecipe(epochs=6, peak_learning_rate=0.2, batch_size=125, shift_pixels=1, flip=True)


def examples() -> tuple[Images, Labels]:
    """Return 20,000 images that no model was trained on, float32 (1, 28, 28) in [0, 1], and their classes."""
    images, labels = _read("train")
    test_images, test_labels = _read("t10k")
    return np.concatenate([images[-HELD_OUT:], test_images]), np.concatenate([labels[-HELD_OUT:], test_labels])


def training_set() -> tuple[Images, Labels]:
    """Return the 50,000 images and classes to train on."""
    images, labels = _read("train")
    return images[:-HELD_OUT], labels[:-HELD_OUT]


def transfer_set() -> tuple[Images, Labels]:
    """Return the first 20,000 of the training images: what distillation and pruning learn from."""
    images, labels = training_set()
    return images[:TRANSFER], labels[:TRANSFER]


def moved_and_mirrored(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the batch with each image moved by up to a pixel and half of them mirrored: clothes stay what they are."""
    return {"input": augmented(batch["input"], shift_pixels=1, flip=True)}


def teacher() -> nn.Module:
    """Return the model that is in service today."""
    images, labels = training_set()
    return trained(
        lambda: residual_network(widths=(48, 96, 192), blocks=1, classes=CLASSES, flips=True),
        name="vision-teacher",
        recipe=TEACHER,
        images=images,
        labels=labels,
    )


def small() -> nn.Module:
    """Return a network of three convolutions, less than a hundredth of the work, offered as a first answerer."""
    images, labels = training_set()
    return trained(
        lambda: small_network(widths=(16, 32, 64), classes=CLASSES, side_pixels=SIDE_PIXELS),
        name="vision-small",
        recipe=SMALL,
        images=images,
        labels=labels,
    )


def untrained_small() -> nn.Module:
    """Return the same small network before training: distillation teaches it the teacher's answers."""
    torch.manual_seed(0)
    return small_network(widths=(16, 32, 64), classes=CLASSES, side_pixels=SIDE_PIXELS).eval()


@cache
def _read(part: str) -> tuple[Images, Labels]:
    """Read images and labels of `train` or `t10k` in the IDX format: a 16- or 8-byte head, then bytes."""
    root = os.environ.get("HALVE_DATA")
    if not root:
        raise WorkloadError("HALVE_DATA must name the folder that holds fashion_mnist. Got nothing.")
    folder = Path(root) / "fashion_mnist"
    files = {kind: folder / f"{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")}
    for file in files.values():
        if not file.is_file():
            raise WorkloadError(f"HALVE_DATA must hold fashion_mnist/{file.name}. Got {root!r}, which does not.")
    pixels = np.frombuffer(gzip.decompress(files["images-idx3"].read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress(files["labels-idx1"].read_bytes()), np.uint8, offset=8)
    images = pixels.reshape(-1, 1, SIDE_PIXELS, SIDE_PIXELS).astype(np.float32) / np.float32(255)
    return images, labels.astype(np.int64)

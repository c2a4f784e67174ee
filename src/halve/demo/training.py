"""Train a model once: deterministic under its seed, kept as safetensors under the hash of recipe, network and data."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.core.documents import replace_file
from halve.demo.extras import require_torch
from halve.errors import InvalidParameterError

if TYPE_CHECKING:
    import torch
    from torch import nn

CACHE_VARIABLE = "HALVE_CACHE"
Advance = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """How an image classifier is trained: SGD with Nesterov momentum 0.9 under one cosine cycle.

    Args:
        epochs: Passes over the images, at least 1.
        peak_learning_rate: Highest step size, reached after a quarter of the steps, > 0.
        batch_size: Images per step, at least 2; an incomplete last batch is left out.
        weight_decay: L2 penalty, >= 0.
        shift_pixels: Each image is moved by up to this many pixels both ways, >= 0.
        flip: Each image is mirrored with probability 1/2.
        seed: Of weights, order and augmentation.
    """

    epochs: int
    peak_learning_rate: float
    batch_size: int = 64
    weight_decay: float = 5e-4
    shift_pixels: int = 2
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InvalidParameterError("epochs", rule="at least 1", value=self.epochs)
        if self.batch_size < 2:
            raise InvalidParameterError("batch_size", rule="at least 2", value=self.batch_size)
        if not self.peak_learning_rate > 0:
            raise InvalidParameterError("peak_learning_rate", rule="positive", value=self.peak_learning_rate)
        if self.shift_pixels < 0:
            raise InvalidParameterError("shift_pixels", rule="at least 0", value=self.shift_pixels)


def cache_folder() -> Path:
    """Return where trained weights are kept: the folder in HALVE_CACHE, else `.cache/halve` here."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path(".cache", "halve"))


def fingerprint(recipe: Mapping[str, object], data: Mapping[str, NDArray[Any]]) -> str:
    """Return 16 hexadecimal digits that change with any part of the recipe or any byte of the data."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode())
    for name in sorted(data):
        array = np.ascontiguousarray(data[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:16]


def computed_once(
    name: str,
    *,
    recipe: Mapping[str, object],
    data: Mapping[str, NDArray[Any]],
    compute: Callable[[], "dict[str, torch.Tensor]"],
) -> "dict[str, torch.Tensor]":
    """Return the tensors that `compute` gives for this recipe and data, from the cache if they are there.

    Raises:
        StorageError: If the cache cannot be written.
    """
    require_torch()
    from safetensors.torch import load_file, save_file

    path = cache_folder() / f"{name}-{fingerprint(recipe, data)}.safetensors"
    if path.is_file():
        return dict(load_file(path))
    tensors = compute()
    with replace_file(path) as partial:
        save_file({key: value.contiguous() for key, value in tensors.items()}, partial)
    return tensors


def trained(
    build: "Callable[[], nn.Module]",
    *,
    name: str,
    recipe: ImageRecipe,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> "nn.Module":
    """Return the classifier that `build` makes, trained by the recipe, in evaluation mode.

    Args:
        build: Makes the untrained network; called under the recipe's seed.
        name: Of the cached file and the progress bar.
        recipe: How to train.
        images: float32 (n, channels, height, width).
        labels: int64 (n,).

    Raises:
        MissingExtraError: If torch is not installed.
        StorageError: If the cache cannot be written.
    """
    require_torch()
    import torch

    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(recipe.seed)
        network = build()

        def compute() -> "dict[str, torch.Tensor]":
            fit(network, images=torch.from_numpy(images), labels=torch.from_numpy(labels), recipe=recipe, name=name)
            return dict(network.state_dict())

        identity = {"network": str(network), **dataclasses.asdict(recipe)}
        state = computed_once(name, recipe=identity, data={"images": images, "labels": labels}, compute=compute)
    network.load_state_dict(state)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval()


def fit(
    network: "nn.Module", *, images: "torch.Tensor", labels: "torch.Tensor", recipe: ImageRecipe, name: str
) -> None:
    """Train the network in place."""
    require_torch()
    import torch

    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = max(1, len(images) // recipe.batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.peak_learning_rate,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_learning_rate, total_steps=steps * recipe.epochs, pct_start=0.25
    )
    with progress(f"training {name}", total=steps * recipe.epochs) as advance:
        for _ in range(recipe.epochs):
            for chosen in torch.randperm(len(images))[: steps * recipe.batch_size].chunk(steps):
                batch = augmented(images[chosen], shift_pixels=recipe.shift_pixels, flip=recipe.flip)
                logits = network(batch.contiguous(memory_format=torch.channels_last))
                loss = torch.nn.functional.cross_entropy(logits, labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                advance()


def augmented(images: "torch.Tensor", *, shift_pixels: int, flip: bool) -> "torch.Tensor":
    """Return the images, each moved by up to `shift_pixels` (zeros move in) and, with `flip`, half of them mirrored.

    Args:
        images: float32 (batch, channels, height, width).
        shift_pixels: Largest move in pixels, >= 0.
        flip: Whether to mirror.
    """
    require_torch()
    import torch

    count, _, height, width = images.shape
    if flip:
        mirrored = torch.rand(count) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if not shift_pixels:
        return images
    padded = torch.nn.functional.pad(images, [shift_pixels] * 4)
    top, left = torch.randint(2 * shift_pixels + 1, (2, count))
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    numbers = torch.arange(count)[:, None, None, None]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[numbers, channels, rows, columns]


@contextmanager
def progress(description: str, *, total: int) -> Iterator[Advance]:
    """Show a bar on stderr while the block runs; call what it yields after each of `total` steps."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)

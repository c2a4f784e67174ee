"""The known failure and its cure: at few bits rounding after training collapses, training with rounding recovers.

Scored in the exported runtime, on images that no model has seen. See `training.train`.
"""

import gzip

import numpy as np
import pytest
import torch
from torch import nn

from halve.techniques.compression.quantization.runtime import run_logits
from halve.techniques.compression.quantization.training import Recipe, convert, parity, prepare, train

TRAINED, TESTED = 10_000, 2_000


def convolution(incoming, outgoing, stride):
    return [nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU()]


def fashion(folder, part, count):
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for kind, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return images.reshape(-1, 1, 28, 28)[:count].astype(np.float32) / 255, labels[:count].astype(np.int64)


def fit(network, images, labels):
    """Two epochs of Adam in fp32."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    for _ in range(2):
        for chosen in torch.randperm(len(images)).split(100):
            loss = nn.functional.cross_entropy(network(torch.from_numpy(images)[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@pytest.mark.data
@pytest.mark.slow
def test_rounding_collapses_and_training_recovers(data_folder, tmp_path):
    torch.manual_seed(0)
    images, labels = fashion(data_folder / "fashion_mnist", "train", TRAINED)
    test_images, test_labels = fashion(data_folder / "fashion_mnist", "t10k", TESTED)
    layers = [*convolution(1, 16, 2), *convolution(16, 32, 1), *convolution(32, 32, 2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 49, 10))
    fit(network, images, torch.from_numpy(labels))

    def accuracy(path):
        batches = [{"input": test_images[start : start + 200]} for start in range(0, TESTED, 200)]
        return np.mean(run_logits(path, batches).argmax(1) == test_labels)

    with torch.no_grad():
        fp32 = np.mean(network(torch.from_numpy(test_images)).argmax(1).numpy() == test_labels)
    found = {}
    for bits in (4, 2):
        prepared = prepare(network, {"input": images[:256]}, weight_bits=bits, activation_bits=bits, edge_bits=None)
        rounded = accuracy(convert(prepared, {"input": images[:8]}, tmp_path / "rounded.onnx").path)
        recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=100)
        train(prepared, {"input": images}, labels, recipe=recipe, teacher=network)
        converted = convert(prepared, {"input": images[:8]}, tmp_path / "trained.onnx")
        found[bits] = (rounded, accuracy(converted.path))
        assert parity(prepared, converted, {"input": test_images[:200]}).largest_steps <= 1
    assert found[4][1] > fp32 - 0.01
    assert found[2][0] < fp32 - 0.2
    assert found[2][1] > fp32 - 0.1

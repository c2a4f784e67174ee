import numpy as np
import pytest
import torch

from halve.demo.networks import small_network
from halve.demo.training import ImageRecipe, trained
from halve.errors import WorkloadError


@pytest.fixture
def vision(example):
    module = example("vision")
    module._read.cache_clear()
    return module


def test_without_halve_data_the_message_says_what_to_set(vision, monkeypatch):
    monkeypatch.delenv("HALVE_DATA", raising=False)
    with pytest.raises(WorkloadError, match="HALVE_DATA must name the folder that holds fashion_mnist"):
        vision.examples()


def test_a_folder_without_the_files_is_named(vision, monkeypatch, tmp_path):
    monkeypatch.setenv("HALVE_DATA", str(tmp_path))
    with pytest.raises(WorkloadError, match=f"must hold fashion_mnist/train-images-idx3-ubyte.gz. Got '{tmp_path}'"):
        vision.examples()


@pytest.mark.data
def test_no_example_was_trained_on(vision, data_folder):
    (train, train_labels), (held_out, labels) = vision.training_set(), vision.examples()
    assert (train.shape, held_out.shape) == ((50_000, 1, 28, 28), (20_000, 1, 28, 28))
    assert (train.dtype, train.min(), train.max()) == (np.float32, 0, 1)
    assert np.bincount(np.concatenate([train_labels, labels])).tolist() == [7000] * 10
    test_images, _ = vision._read("t10k")
    assert np.array_equal(held_out[10_000:], test_images)


@pytest.mark.data
def test_the_images_are_what_their_labels_say(vision, data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path))
    images, labels = vision.training_set()
    network = trained(
        lambda: small_network(widths=(8, 16), classes=10, side_pixels=28),
        name="tiny",
        recipe=ImageRecipe(epochs=1, peak_learning_rate=0.1, shift_pixels=0),
        images=images[:6000],
        labels=labels[:6000],
    )
    held_out, answers = vision.examples()
    with torch.inference_mode():
        right = network(torch.from_numpy(held_out)).argmax(dim=1).numpy() == answers
    assert right[:10_000].mean() > 0.7
    assert right[10_000:].mean() > 0.7

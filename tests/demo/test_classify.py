import subprocess
import sys

import numpy as np
import torch

from halve.demo import classify
from halve.demo.networks import residual_network
from halve.demo.training import ImageRecipe, trained


def test_the_images_are_five_thousand_digits_between_0_and_1():
    images, labels = classify.digits()
    assert images.shape == (5000, 1, 28, 28)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)
    assert np.bincount(labels).tolist() == [500] * 10


def test_no_example_was_trained_on_and_every_image_is_used():
    (train, train_labels), (held_out, labels) = classify.training_set(), classify.examples()
    seen = {image.tobytes() for image in train}
    assert (len(train), len(held_out)) == (2000, 3000)
    assert not seen & {image.tobytes() for image in held_out}
    assert np.bincount(train_labels).tolist() == [200] * 10
    assert np.bincount(labels).tolist() == [300] * 10


def test_examples_come_in_no_order_of_class():
    _, labels = classify.examples()
    assert np.count_nonzero(np.diff(labels)) > 2000


def test_reading_the_images_imports_neither_pandas_nor_torch():
    code = (
        "import sys; from halve.demo import classify; classify.examples();"
        "print(*sorted({'pandas', 'matplotlib', 'mlxtend', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_small_network_is_right_on_nineteen_of_twenty_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path))
    images, labels = classify.examples()
    with torch.inference_mode():
        logits = classify.small()(torch.from_numpy(images))
    assert np.mean(logits.argmax(dim=1).numpy() == labels) > 0.95


def test_a_narrow_teacher_learns_digits_in_three_passes(tmp_path, monkeypatch):
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path))
    images, labels = classify.training_set()
    network = trained(
        lambda: residual_network(widths=(8, 16), blocks=1, classes=10, flips=False),
        name="narrow",
        recipe=ImageRecipe(epochs=3, peak_learning_rate=0.2, batch_size=50, shift_pixels=0),
        images=images,
        labels=labels,
    )
    held_out, answers = classify.examples()
    with torch.inference_mode():
        logits = network(torch.from_numpy(held_out[:500]))
    assert np.mean(logits.argmax(dim=1).numpy() == answers[:500]) > 0.8

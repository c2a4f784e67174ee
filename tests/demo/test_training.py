import dataclasses
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from halve.demo.training import ImageRecipe, augmented, cache_folder, computed_once, fingerprint, trained
from halve.errors import InvalidParameterError, StorageError

RECIPE = ImageRecipe(epochs=4, peak_learning_rate=0.1, batch_size=8, shift_pixels=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path))
    return tmp_path


def stripes(count=64):
    """Images whose class says whether their upper or lower half is bright."""
    labels = np.arange(count, dtype=np.int64) % 2
    images = np.random.default_rng(0).uniform(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    images[labels == 0, :, :4] += 0.7
    images[labels == 1, :, 4:] += 0.7
    return images, labels


def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def train(images, labels, recipe=RECIPE):
    return trained(build, name="stripes", recipe=recipe, images=images, labels=labels)


def test_training_learns_the_task(folder):
    images, labels = stripes()
    with torch.inference_mode():
        answers = train(images, labels)(torch.from_numpy(images)).argmax(dim=1)
    assert np.mean(answers.numpy() == labels) > 0.95


def test_the_same_seed_gives_the_same_weights_wherever_they_are_kept(tmp_path, monkeypatch):
    states = []
    for name in ("first", "second"):
        monkeypatch.setenv("HALVE_CACHE", str(tmp_path / name))
        torch.manual_seed(len(states))
        states.append(train(*stripes()).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_another_seed_gives_other_weights(folder):
    first = train(*stripes())
    second = train(*stripes(), recipe=dataclasses.replace(RECIPE, seed=1))
    assert not torch.equal(first[0].weight, second[0].weight)


def test_training_leaves_the_callers_random_numbers_alone(folder):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(*stripes())
    assert torch.equal(torch.rand(3), expected)


def test_the_second_call_reads_what_the_first_kept(folder):
    first = train(*stripes())
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    second = train(*stripes())
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == kept
    assert len(kept) == 1
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert not second.training


def test_other_data_or_another_recipe_is_trained_anew(folder):
    images, labels = stripes()
    train(images, labels)
    train(1 - images, labels)
    train(images, labels, recipe=dataclasses.replace(RECIPE, epochs=1))
    assert len(list(folder.iterdir())) == 3


def test_computed_once_computes_once(folder):
    calls = []

    def compute():
        calls.append(1)
        return {"answer": torch.tensor([42.0])}

    for _ in range(2):
        got = computed_once("thing", recipe={"a": 1}, data={}, compute=compute)
        assert got["answer"].item() == 42
    assert len(calls) == 1


def test_what_fails_to_compute_leaves_nothing(folder):
    def compute():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        computed_once("thing", recipe={}, data={}, compute=compute)
    assert list(folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path))
    (tmp_path / f"thing-{fingerprint({}, {})}.safetensors").mkdir()
    with pytest.raises(StorageError, match="thing-"):
        computed_once("thing", recipe={}, data={}, compute=lambda: {"x": torch.zeros(1)})


def test_without_halve_cache_weights_lie_under_the_current_folder(monkeypatch):
    monkeypatch.delenv("HALVE_CACHE", raising=False)
    assert cache_folder().parts == (".cache", "halve")
    assert "HALVE_CACHE" not in os.environ


@given(arrays.arrays(np.float32, (3, 2), elements=st.floats(-1, 1, width=32)), st.integers(0, 5))
def test_a_fingerprint_changes_with_every_byte(array, position):
    changed = array.copy()
    changed.flat[position] += np.float32(1)
    assert fingerprint({}, {"x": array}) == fingerprint({}, {"x": array.copy()})
    assert fingerprint({}, {"x": array}) != fingerprint({}, {"x": changed})
    assert fingerprint({}, {"x": array}) != fingerprint({}, {"y": array})
    assert fingerprint({"position": position}, {"x": array}) != fingerprint({}, {"x": array})


@given(st.integers(0, 3), st.integers(0, 2**31))
def test_a_moved_image_is_a_window_of_the_padded_one(shift, seed):
    torch.manual_seed(seed)
    images = torch.arange(1, 25, dtype=torch.float32).reshape(1, 1, 4, 6)
    moved = augmented(images, shift_pixels=shift, flip=False)
    padded = torch.nn.functional.pad(images, [shift] * 4)
    offsets = [(top, left) for top in range(2 * shift + 1) for left in range(2 * shift + 1)]
    windows = [padded[..., top : top + 4, left : left + 6] for top, left in offsets]
    assert any(torch.equal(moved, window) for window in windows)


def test_a_flip_mirrors_about_half_of_the_images():
    torch.manual_seed(0)
    images = torch.arange(3.0).repeat(400, 1, 2, 1)
    flipped = (augmented(images, shift_pixels=0, flip=True) == images.flip(-1)).all(dim=(1, 2, 3))
    assert 150 < int(flipped.sum()) < 250


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("epochs", 0, "at least 1"),
        ("batch_size", 1, "at least 2"),
        ("peak_learning_rate", 0.0, "positive"),
        ("shift_pixels", -1, "at least 0"),
    ],
)
def test_a_recipe_that_breaks_a_rule_says_which(field, value, rule):
    with pytest.raises(InvalidParameterError, match=f"{field} must be {rule}. Got {value}"):
        dataclasses.replace(RECIPE, **{field: value})

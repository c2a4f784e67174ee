import numpy as np
import pytest
import torch
from torch import nn

from halve.chains import read_record, recovery_recipe, write_mixture
from halve.errors import ModelError
from halve.techniques.compression.mixture_of_experts import Specification


class Encoder(nn.Module):
    """A block over tokens, mean, classes: a feed-forward sees every token of a batch at once."""

    def __init__(self, neurons):
        super().__init__()
        self.up = nn.Linear(8, 64)
        self.block = nn.Sequential(nn.Linear(64, neurons), nn.ReLU(), nn.Linear(neurons, 64))
        self.head = nn.Linear(64, 3)

    def forward(self, inputs):
        tokens = self.up(inputs)
        return self.head((tokens + self.block(tokens)).mean(dim=1))


def encoder(neurons):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(neurons).eval()


def sequences(*, tokens):
    return list(np.random.default_rng(0).standard_normal((40, tokens, 8)).astype(np.float32))


def convert(folder, lesson, **sizes):
    write_mixture(folder, lesson=lesson, recipe=recovery_recipe(lesson), name="mixture", **sizes)


def test_a_mixture_that_is_no_faster_is_not_written(make_lesson, tmp_path):
    """All experts are asked: every product is computed, and gathering comes on top."""
    (tmp_path / "out").mkdir()
    lesson = make_lesson(payloads=sequences(tokens=4), module=encoder(64), epochs=1)
    with pytest.raises(ModelError, match=r"4 of 4 experts compute .* no faster here: .* no memory is saved"):
        convert(tmp_path / "out", lesson, experts=4, active=4)
    assert list((tmp_path / "out").iterdir()) == []
    assert lesson.load.asked == [], "it is timed before the teacher is asked for anything"


def test_a_module_without_feed_forwards_is_refused(make_lesson, tmp_path):
    with pytest.raises(ModelError, match="feed-forward"):
        convert(tmp_path, make_lesson(64, module=nn.Sequential(nn.Linear(8, 3)).eval(), epochs=1), experts=4, active=1)


@pytest.mark.slow
def test_a_mixture_that_pays_is_written_with_how_to_rebuild_it(make_lesson, tmp_path):
    (tmp_path / "out").mkdir()
    lesson = make_lesson(payloads=sequences(tokens=32), module=encoder(1024), epochs=1)
    convert(tmp_path / "out", lesson, experts=16, active=1)
    names = ["mixture.json", "model.onnx", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    record = read_record(tmp_path / "out")
    assert record.chain == "mixture_of_experts > distillation"
    assert record.steps[0].parameters == {"experts": 16, "active": 1, "shared_neurons_share": 0.0}
    assert 0 < record.steps[0].figures["active_flops_ratio"] < 0.3
    assert 0 < record.steps[0].figures["seconds_ratio"] < 1
    Specification.from_json((tmp_path / "out" / "mixture.json").read_text())

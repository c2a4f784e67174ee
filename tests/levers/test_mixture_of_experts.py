import pytest

from halve import chains
from halve.levers.mixture_of_experts import ACTIVE, EXPERTS, MixtureOfExperts

LAYERED = """
import torch
from torch import nn


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).eval()
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory, open_training_bench):
    with open_training_bench(tmp_path_factory.mktemp("experts")) as (bench, stack):
        lever = MixtureOfExperts()
        yield bench, stack, lever, list(lever.propose(stack, bench))


def test_wall_clock_decides_and_the_rung_says_both_times_or_the_model_is_there(tried):
    bench, stack, lever, changes = tried
    if changes:
        model = changes[0].after.models[0]
        folder = (bench.model_folder(model) / model.files[0].path).parent
        assert chains.read_record(folder).steps[0].figures["seconds_ratio"] < 1
        return
    reason = lever.nothing(stack, bench)
    assert f"{ACTIVE} of {EXPERTS} experts compute" in reason
    assert "no faster here" in reason
    assert "no memory is saved" in reason


def test_a_network_without_a_feed_forward_is_left_alone(tmp_path, open_training_bench):
    (tmp_path / "layered.py").write_text(LAYERED)
    model = {"name": "teacher", "entry": "layered:convolutional"}
    with open_training_bench(tmp_path, changes={"model": model}) as (bench, stack):
        lever = MixtureOfExperts()
        assert list(lever.propose(stack, bench)) == []
        assert "dense feed-forward" in lever.nothing(stack, bench)


def test_without_training_data_it_says_so(tmp_path, open_training_bench):
    with open_training_bench(tmp_path, changes={"training": None, "students": []}) as (bench, stack):
        assert list(MixtureOfExperts().propose(stack, bench)) == []
        assert MixtureOfExperts().nothing(stack, bench) == "not tried: the config names no training data"


def test_a_table_cannot_be_converted(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    assert list(MixtureOfExperts().propose(baseline_of(bench), bench)) == []

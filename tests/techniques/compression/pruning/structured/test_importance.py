import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import prunable_groups, unit_scores


def two_neurons():
    """y = 1 relu(2 x) + 3 relu(-x) + 1 relu(0 x), one input, one output besides a constant one."""
    module = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)).eval()
    module[0].weight.data = torch.tensor([[2.0], [-1.0], [0.0]])
    module[2].weight.data = torch.tensor([[1.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
    return module


INPUTS = {"x": np.array([[1.0], [-2.0]], np.float32)}


def test_taylor_by_hand():
    # L = sum over rows of y_0. Hidden: (2, 0, 0) and (0, 2, 0). Readers' gradients: dL/dw = (2, 2, 0).
    # |sum w g| / n = |1 x 2| / 2, |3 x 2| / 2, 0.
    module = two_neurons()
    scores = unit_scores(module, prunable_groups(module, INPUTS), INPUTS, loss=lambda y, rows: y[:, 0].sum())
    np.testing.assert_allclose(scores["0"], [1.0, 3.0, 0.0])


def test_taylor_adds_up_over_batches_and_sees_the_rows():
    module = two_neurons()
    seen = []

    def loss(y, rows):
        seen.append((rows.start, rows.stop))
        return y[:, 0].sum()

    groups = prunable_groups(module, INPUTS)
    scores = unit_scores(module, groups, INPUTS, loss=loss, batch_rows=1)
    np.testing.assert_allclose(scores["0"], [1.0, 3.0, 0.0])
    assert seen == [(0, 1), (1, 2)]


def test_magnitude_by_hand():
    # sqrt of writers' and readers' squares: sqrt(4 + 1), sqrt(1 + 9), sqrt(0 + 1), over their mean.
    module = two_neurons()
    scores = unit_scores(module, prunable_groups(module, INPUTS), INPUTS, importance="magnitude")
    expected = np.sqrt([5.0, 10.0, 1.0])
    np.testing.assert_allclose(scores["0"], expected / expected.mean())


def test_activation_by_hand():
    # Mean |hidden|: (2 + 0) / 2, (0 + 2) / 2, 0, over their mean 2/3.
    module = two_neurons()
    scores = unit_scores(module, prunable_groups(module, INPUTS), INPUTS, importance="activation", batch_rows=1)
    np.testing.assert_allclose(scores["0"], [1.5, 1.5, 0.0])


def test_without_a_loss_it_is_half_the_fisher_information():
    # Logits (w h, 0) with h = 1: d log p(y)/dw = 1[y=0] - p, so E[(w d)^2] / 2 = w^2 p (1 - p) / 2.
    module = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).eval()
    module[0].weight.data = torch.tensor([[1.0], [1.0]])
    module[2].weight.data = torch.tensor([[0.5, 0.25], [0.0, 0.0]])
    inputs = {"x": np.ones((4000, 1), np.float32)}
    scores = unit_scores(module, prunable_groups(module, inputs), inputs, batch_rows=1)["0"]
    p = 1 / (1 + np.exp(-0.75))
    np.testing.assert_allclose(scores, np.array([0.5, 0.25]) ** 2 * p * (1 - p) / 2, rtol=0.05)


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_every_unit_has_a_score_and_the_module_stays(case, importance):
    module, inputs = case
    before = {name: value.clone() for name, value in module.state_dict().items()}
    groups = prunable_groups(module, inputs)
    scores = unit_scores(module, groups, inputs, importance=importance)
    assert {name: score.shape for name, score in scores.items()} == {g.name: (g.units,) for g in groups}
    assert all((score >= 0).all() and np.isfinite(score).all() and score.sum() > 0 for score in scores.values())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_same_seed_gives_the_same_scores(build):
    make, inputs = build["plain"]
    groups = prunable_groups(make(), inputs())
    one, two = (unit_scores(make(), groups, inputs(), seed=3)["0"] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_what_cannot_be_is_named(build):
    make, inputs = build["plain"]
    groups = prunable_groups(make(), inputs())
    with pytest.raises(InvalidParameterError, match="importance"):
        unit_scores(make(), groups, inputs(), importance="luck")
    with pytest.raises(InvalidParameterError, match="batch_rows"):
        unit_scores(make(), groups, inputs(), batch_rows=0)
    with pytest.raises(InvalidParameterError, match="at least one row"):
        unit_scores(make(), groups, {"x": np.ones((0, 6), np.float32)})
    module = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    images = {"x": np.ones((2, 1, 2, 2), np.float32)}
    with pytest.raises(ModelError, match="needs logits"):
        unit_scores(module, prunable_groups(module, images), images)

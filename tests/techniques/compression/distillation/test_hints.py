import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation import Hint, Recipe
from halve.techniques.compression.distillation.hints import (
    AttentionHint,
    FeatureHint,
    HintLoss,
    attention_map,
    log_relations,
)

RECIPE = Recipe(epochs=1, learning_rate=1, feature_hint=2.0, attention_hint=3.0)


class Teacher(nn.Module):
    """Tokens to states of width 7 (as the first of two outputs), to logits."""

    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(40, width)
        self.layer = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, input_ids, attention_mask):
        states, _ = self.layer(self.table(input_ids))
        return self.head(states[:, 0])


def test_features_are_compared_through_a_projection():
    hint = FeatureHint(2, 3)
    with torch.no_grad():
        hint.projection.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    # The projection of (1, 2) is (1, 2, 3); the squared distances are 0, 0, 9.
    assert hint(student, teacher).item() == pytest.approx(3.0)


def test_a_map_is_the_squared_activation_at_unit_length():
    # Two channels at two places: (3^2 + 1^2) / 2 = 5 and (0 + 0) / 2 = 0.
    features = torch.tensor([[[[3.0, 0.0]], [[1.0, 0.0]]]])
    torch.testing.assert_close(attention_map(features), torch.tensor([[1.0, 0.0]]))


def test_attention_hints_need_no_equal_widths_and_vanish_for_equal_looks():
    torch.manual_seed(0)
    images, hint = torch.rand(2, 4, 6, 6), AttentionHint()
    wide = images.repeat(1, 3, 1, 1)
    assert hint(images, wide).item() == pytest.approx(0, abs=1e-6)
    assert hint(images, torch.rand(2, 5, 6, 6)).item() > 1e-3
    assert hint(images, torch.rand(2, 5, 12, 12)).isfinite()
    states = torch.randn(2, 5, 8)
    turned = states @ torch.linalg.qr(torch.randn(8, 8)).Q
    assert hint(states, turned).item() == pytest.approx(0, abs=1e-5)
    assert hint(states, torch.randn(2, 5, 8)).item() > 1e-2


def test_masked_tokens_have_no_part():
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    student, teacher = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    relations = log_relations(student, mask).exp()
    assert relations[0, :, 3:].max() == 0
    other = student.clone()
    other[0, 3:] = 100.0
    for hint in (AttentionHint(), FeatureHint(4, 4)):
        torch.testing.assert_close(hint(student, teacher, mask), hint(other, teacher, mask))


def test_hints_watch_named_submodules_and_are_weighted(texts):
    torch.manual_seed(0)
    student, teacher = Teacher(5), Teacher(7)
    batch = {name: torch.from_numpy(array[:4]) for name, array in texts.items()}
    hints = (
        Hint(student="table", teacher="table", kind="feature"),
        Hint(student="layer", teacher="layer", kind="attention"),
    )
    loss = HintLoss(student, teacher, hints, recipe=RECIPE, batch=batch)
    assert not any(name.startswith(("student", "teacher")) for name in loss.state_dict())
    with loss.watched() as seen:
        student(*batch.values())
        total = loss(seen, batch)
    assert set(seen) == {(side, name) for side in ("student", "teacher") for name in ("table", "layer")}
    parts = [
        part(seen["student", hint.student], seen["teacher", hint.teacher], batch["attention_mask"])
        for hint, part in zip(hints, loss.parts, strict=True)
    ]
    torch.testing.assert_close(total, 2.0 * parts[0] + 3.0 * parts[1])
    assert torch.autograd.grad(total, student.table.weight)[0].norm() > 0
    assert not student.table._forward_hooks


def test_without_hints_the_loss_is_0():
    loss = HintLoss(nn.Linear(2, 2), None, (), recipe=RECIPE, batch={})
    with loss.watched() as seen:
        assert seen == {}
    assert loss({}, {}).item() == 0


def test_bad_hints_are_refused():
    student, teacher = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 4))
    batch = {"points": torch.from_numpy(np.ones((2, 2), np.float32))}

    def make(**names):
        return HintLoss(student, teacher, (Hint(**names),), recipe=RECIPE, batch=batch)

    with pytest.raises(InvalidParameterError, match=r"hint\.student must be the name of a submodule\. Got 'layer'"):
        make(student="layer", teacher="0")
    with pytest.raises(InvalidParameterError, match=r"hint\.teacher must be the name of a submodule\. Got '3'"):
        make(student="0", teacher="3")
    with pytest.raises(ModelError, match="'0' and '0' cannot be compared by shape"):
        make(student="0", teacher="0", kind="attention")
    with pytest.raises(InvalidParameterError, match="teacher must be a torch module where there are hints"):
        HintLoss(student, None, (Hint(student="0", teacher="0"),), recipe=RECIPE, batch=batch)

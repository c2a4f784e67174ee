import pytest
import torch
from torch import nn

from halve.techniques.compression.distillation import Recipe
from halve.techniques.compression.distillation.updates import (
    AVERAGED_EVERY,
    Average,
    Optimizers,
    load_state,
    state_of,
)

RECIPE = Recipe(epochs=1, learning_rate=0.1, weight_decay=0.0, warm_up_share=0.0, rate_factors=(("1", 0.5),))


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4, sparse=True)
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(self.words(ids).sum(1))


def train(module, optimizers, first, last):
    for update in range(first, last):
        module(torch.tensor([[update % 10, 1]])).square().sum().backward()
        optimizers.step(update)


def test_a_parameter_moves_by_its_factor_of_the_learning_rate():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizers = Optimizers({"": module}, recipe=RECIPE, total=10)
    module(torch.randn(4, 2)).square().sum().backward()
    optimizers.step(0)
    # Adam's first step is the learning rate, whatever the gradient.
    for name, length in (("0.weight", 0.1), ("1.weight", 0.05)):
        moved = (module.state_dict()[name] - before[name]).abs()
        torch.testing.assert_close(moved, torch.full((2, 2), length), rtol=1e-3, atol=1e-4)


def test_only_the_rows_of_a_sparse_table_that_were_read_move():
    torch.manual_seed(0)
    module = Tables()
    before = module.words.weight.detach().clone()
    optimizers = Optimizers({"": module}, recipe=RECIPE, total=10)
    assert [type(optimizer).__name__ for optimizer in optimizers.optimizers] == ["AdamW", "SparseAdam"]
    train(module, optimizers, 3, 4)
    moved = (module.words.weight - before).abs().sum(1) > 0
    assert torch.nonzero(moved)[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_state_that_was_kept_goes_on_to_the_same_bits(optimizer):
    recipe = Recipe(epochs=1, learning_rate=0.1, optimizer=optimizer)

    def fresh():
        torch.manual_seed(0)
        module = Tables()
        return module, Optimizers({"": module}, recipe=recipe, total=10)

    whole, optimizers = fresh()
    train(whole, optimizers, 0, 10)
    half, optimizers = fresh()
    train(half, optimizers, 0, 5)
    kept = {name: tensor.clone() for name, tensor in optimizers.tensors().items()}
    weights = {name: tensor.clone() for name, tensor in state_of(half).items()}
    again, optimizers = fresh()
    load_state(again, weights)
    optimizers.load(kept)
    train(again, optimizers, 5, 10)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_gradients_are_shortened():
    recipe = Recipe(epochs=1, learning_rate=1.0, optimizer="sgd", momentum=0.0, warm_up_share=0.0, weight_decay=0.0)
    module = nn.Linear(2, 1, bias=False)
    before = module.weight.detach().clone()
    optimizers = Optimizers({"": module}, recipe=recipe, total=4)
    (1000 * module(torch.ones(1, 2))).sum().backward()
    optimizers.step(0)
    assert (module.weight - before).norm().item() == pytest.approx(recipe.gradient_norm, rel=1e-3)


def test_the_average_follows_slowly():
    # At update 7 the decay is min(0.5, 8 / 17) = 8 / 17, over 8 updates: 1 * (8 / 17)^8 + 0 * (1 - ...) = 0.002406.
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average = Average(module, 0.5)
    with torch.no_grad():
        module.weight.fill_(0.0)
    for update in range(AVERAGED_EVERY):
        average.step(update)
    assert average.state()["weight"].item() == pytest.approx((8 / 17) ** 8, rel=1e-4)
    assert module.weight.item() == 0.0
    assert Average(module, None).state()["weight"].item() == 0.0


def test_tied_weights_are_kept_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    state = state_of(module)
    assert list(state) == ["0.weight"]
    load_state(module, {"0.weight": torch.ones(3, 3)})
    assert module[1].weight.sum() == 9

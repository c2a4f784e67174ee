import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.training import Recipe, prepare, train
from halve.techniques.compression.quantization.training.prepare import products, quantizers
from halve.techniques.compression.quantization.training.train import distillation_loss, learning_rate_share

RECIPE = Recipe(epochs=4, learning_rate=0.02, batch_size=16)


@pytest.fixture
def prepared(cases):
    return prepare(*cases["convolutional"], weight_bits=3, activation_bits=3, edge_bits=None)


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_training_lowers_the_loss_and_moves_weights_and_steps(prepared, cases, answers):
    network, inputs = cases["convolutional"]
    before = state(prepared)
    updates = []
    history = train(
        prepared,
        inputs,
        answers["convolutional"].argmax(1),
        recipe=RECIPE,
        teacher=network,
        progress=lambda: updates.append(1),
    )
    assert history[-1].loss < history[0].loss
    assert len(updates) == 4 * (96 // 16)
    assert not prepared.training
    moved = {name for name, tensor in state(prepared).items() if not torch.equal(before[name], tensor)}
    assert {f"{name}.step" for name in (*products(prepared), *quantizers(prepared))} <= moved
    assert {f"{name}.product.weight" for name in products(prepared)} <= moved


def test_it_recovers_what_rounding_lost(cases, answers):
    network, inputs = cases["encoder"]
    prepared = prepare(network, inputs, weight_bits=2, activation_bits=3)
    expected, labels = answers["encoder"], answers["encoder"].argmax(1)

    def error():
        with torch.no_grad():
            logits = prepared(*map(torch.from_numpy, inputs.values())).numpy()
        return np.mean(np.square(logits - expected))

    before = error()
    recipe = Recipe(epochs=8, learning_rate=0.05, batch_size=16, distillation=1.0)
    train(prepared, inputs, labels, recipe=recipe, teacher=network)
    assert error() < 0.5 * before


def test_one_seed_gives_the_same_bits_and_leaves_torchs_generator_alone(cases, answers):
    network, inputs = cases["dense"]
    labels, states = answers["dense"].argmax(1), []
    for seed in (1, 1, 2):
        prepared = prepare(network, inputs, weight_bits=4)
        generator = torch.random.get_rng_state()
        train(prepared, inputs, labels, recipe=Recipe(epochs=1, learning_rate=0.1, batch_size=16, seed=seed))
        assert torch.equal(torch.random.get_rng_state(), generator)
        states.append(torch.cat([tensor.flatten().double() for tensor in state(prepared).values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_statistics_are_frozen_for_the_last_share(prepared, cases, answers):
    norm = next(part.norm for part in products(prepared).values() if part.norm is not None)
    seen = []
    train(
        prepared,
        cases["convolutional"][1],
        answers["convolutional"].argmax(1),
        recipe=Recipe(epochs=2, learning_rate=0.01, batch_size=16, frozen_share=0.5),
        progress=lambda: seen.append(norm.running_mean.clone()),
    )
    changes = [not torch.equal(one, other) for one, other in pairwise(seen)]
    assert changes == [True] * 5 + [False] * 6


def test_teacher_and_student_see_the_same_augmented_batch(prepared, cases, answers):
    network, inputs = cases["convolutional"]
    batches = []

    def augment(batch):
        batches.append(batch["input"] + torch.randn_like(batch["input"]))
        return {"input": batches[-1]}

    def teacher(images):
        assert images is batches[-1]
        return network(images)

    recipe = Recipe(epochs=1, learning_rate=0.01, batch_size=32)
    train(prepared, inputs, answers["convolutional"].argmax(1), recipe=recipe, teacher=teacher, augment=augment)
    assert len(batches) == 3


def test_the_loss_of_distillation_is_the_formula():
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(7, 5), torch.randn(7, 5), torch.arange(7) % 5
    recipe = Recipe(epochs=1, learning_rate=1, distillation=0.3, temperature=4.0)
    hard = functional.cross_entropy(student, labels)
    target, answer = (torch.softmax(logits / 4.0, 1) for logits in (teacher, student))
    soft = (target * (target / answer).log()).sum(1).mean()
    expected = 0.7 * hard + 0.3 * 16 * soft
    torch.testing.assert_close(distillation_loss(student, labels, teacher, recipe=recipe), expected)
    torch.testing.assert_close(distillation_loss(student, labels, None, recipe=recipe), hard)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    shares = [learning_rate_share(update, 100) for update in range(100)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5] == 1.0
    assert shares == shares[:6] + sorted(shares[6:], reverse=True)
    assert shares[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 94 / 95)))
    assert learning_rate_share(0, 1) == 1.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("batch_size", 1),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("gradient_norm", 0.0),
        ("frozen_share", 1.1),
        ("distillation", -0.1),
        ("temperature", 0.0),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_refused(field, value):
    with pytest.raises(InvalidParameterError, match=f"{field} must be"):
        Recipe(**{"epochs": 1, "learning_rate": 0.1, field: value})


def test_bad_input_is_refused(prepared, cases, answers):
    network, inputs = cases["convolutional"]
    labels = answers["convolutional"].argmax(1)
    with pytest.raises(InvalidParameterError, match=r"prepared must be a module from prepare\(\)"):
        train(network, inputs, labels, recipe=RECIPE)
    with pytest.raises(InvalidParameterError, match="inputs must be as long as the 95 labels"):
        train(prepared, inputs, labels[:95], recipe=RECIPE)
    with pytest.raises(InvalidParameterError, match=r"labels must be at least one batch of 16\. Got 8"):
        train(prepared, {"input": inputs["input"][:8]}, labels[:8], recipe=RECIPE)
    broken = {"input": np.full_like(inputs["input"], np.nan)}
    with pytest.raises(ModelError, match=r"the training loss must be finite\. Got nan in epoch 0"):
        train(prepared, broken, labels, recipe=RECIPE)

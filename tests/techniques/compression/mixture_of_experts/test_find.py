import pytest
import torch
from torch import nn

from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.find import activation_of, feed_forwards, mixtures, put
from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts


def test_torch_encoder_layers(encoder):
    names = [(place.name, place.between, place.second) for place in feed_forwards(encoder)]
    layer = "encoder.layers.{}."
    assert names == [
        (f"{layer.format(n)}linear1", (f"{layer.format(n)}activation",), f"{layer.format(n)}linear2") for n in (0, 1)
    ]
    place = feed_forwards(encoder)[0]
    assert (place.activation, place.inputs, place.neurons, place.outputs) == ("gelu", 32, 64, 32)


def test_pairs_as_bert_names_them(bert_like):
    (place,) = feed_forwards(bert_like)
    assert (place.name, place.second) == ("intermediate.dense", "output.dense")
    assert place.between == ("intermediate.intermediate_act_fn",)


def test_sequences_with_and_without_dropout(sequence):
    (place,) = feed_forwards(sequence)
    assert (place.name, place.between, place.second, place.activation) == ("0", ("1", "2"), "3", "relu")
    chain = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 2))
    # The middle layer belongs to the first pair, so the last two are no pair of their own.
    assert [place.name for place in feed_forwards(chain)] == ["0"]


def test_what_is_no_feed_forward_is_left_alone():
    for module in (
        nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 2)),
        nn.Linear(3, 3),
    ):
        assert feed_forwards(module) == ()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (nn.ReLU(), "relu"),
        (torch.relu, "relu"),
        (nn.functional.gelu, "gelu"),
        (nn.GELU(), "gelu"),
        (nn.GELU(approximate="tanh"), "gelu_tanh"),
        (nn.SiLU(), "silu"),
        (lambda x: x * torch.sigmoid(x), "silu"),
        (nn.Tanh(), None),
        (nn.ReLU6(), None),
        (lambda x: x.sum(), None),
        (lambda: None, None),
    ],
)
def test_activations_are_told_by_what_they_compute(function, name):
    assert activation_of(function) == name


def test_a_mixture_takes_the_place(sequence):
    (place,) = feed_forwards(sequence)
    mixture = MixtureOfExperts(MixtureConfig(inputs=12, outputs=4, experts=2, active=1, neurons=12, activation="relu"))
    put(sequence, place, mixture)
    assert mixtures(sequence) == {"0": mixture}
    inputs = torch.randn(3, 12)
    torch.testing.assert_close(sequence(inputs), mixture(inputs))
    assert feed_forwards(sequence) == ()

import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.mixture_of_experts.config import MixtureConfig

SIZES = {"inputs": 8, "outputs": 6, "experts": 4, "active": 2, "neurons": 5}


def test_counts_by_hand():
    config = MixtureConfig(**SIZES, shared_neurons=3)
    # One expert: 5 x 8 weights in, 5 biases, 6 x 5 weights out, 6 biases.
    assert config.expert_parameters == 40 + 5 + 30 + 6
    # Two operations per weight.
    assert config.expert_flops == 2 * (40 + 30)
    assert config.shared_flops == 2 * 3 * (8 + 6)
    assert config.router_flops == 2 * 8 * 4
    assert config.dense_flops == 4 * 140 + 84
    assert config.active_flops == 2 * 140 + 84 + 64


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inputs", 0),
        ("outputs", 0),
        ("experts", 0),
        ("neurons", 0),
        ("active", 0),
        ("active", 5),
        ("shared_neurons", -1),
        ("activation", "tanh"),
        ("gating", "sum"),
        ("capacity_factor", 0.0),
        ("capacity_factor", float("nan")),
    ],
)
def test_what_breaks_its_rule_is_named(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        MixtureConfig(**{**SIZES, name: value})

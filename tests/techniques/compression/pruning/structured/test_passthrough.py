import torch
from torch import nn

from halve.techniques.compression.pruning.structured.passthrough import Passthrough


def test_it_hands_its_first_input_on():
    states = torch.randn(2, 3)
    assert Passthrough(nn.ReLU())(states, None, mask=1) is states
    assert Passthrough(nn.ReLU(), returns_tuple=True)(states) == (states,)

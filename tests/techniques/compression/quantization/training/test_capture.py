import warnings

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.training.capture import capture, norm_layer, product_layer, weight_owner


@pytest.mark.parametrize("name", ["dense", "convolutional", "encoder"])
def test_the_graph_answers_as_the_module_at_any_batch_size(cases, answers, name):
    network, inputs = cases[name]
    graph = capture(network, inputs)
    for rows in (1, 3, 96):
        with torch.no_grad():
            logits = graph(*(torch.from_numpy(array[:rows]) for array in inputs.values()))
        np.testing.assert_allclose(logits.numpy(), answers[name][:rows], atol=1e-5)


def test_the_graph_owns_its_parameters(cases):
    network, inputs = cases["dense"]
    before = network[0].weight.detach().clone()
    graph = capture(network, inputs)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    assert torch.equal(network[0].weight, before)


def test_dropout_is_gone_and_nothing_is_said_about_the_tracer(cases):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        graph = capture(*cases["dense"])
    assert [str(warning.message) for warning in said] == []
    assert not [node for node in graph.graph.nodes if "dropout" in node.name]


def test_products_are_named_by_the_owner_of_their_weight(cases):
    graph = capture(*cases["convolutional"])
    owners = [weight_owner(node) for node in graph.graph.nodes]
    assert [name for name in owners if name is not None] == ["first", "second.0", "head"]


class Reads(nn.Module):
    """One layer, then one norm."""

    def __init__(self, layer, norm):
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, tensor):
        return self.norm(self.layer(tensor)).flatten(1)


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), (6,)),
        (nn.Conv1d(6, 4, 3, padding="same"), nn.BatchNorm1d(4), (6, 8)),
        (nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=2, groups=2), nn.BatchNorm2d(4, affine=False),
         (6, 9, 9)),
        (nn.Conv2d(6, 6, 3, padding="same", groups=6), nn.BatchNorm2d(6, eps=0.1), (6, 9, 9)),
    ],
    ids=["linear", "same", "dilated", "depthwise"],
)  # fmt: skip
def test_layers_are_rebuilt_with_every_attribute(layer, norm, shape):
    norm.running_mean, norm.running_var = torch.rand(norm.num_features), torch.rand(norm.num_features) + 0.5
    module = Reads(layer, norm).eval()
    tensor = torch.randn(4, *shape)
    graph = capture(module, {"input": tensor.numpy()})
    (node,) = [node for node in graph.graph.nodes if weight_owner(node) is not None]
    rebuilt, rebuilt_norm = product_layer(graph, node), norm_layer(graph, node)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt_norm(rebuilt(tensor)).flatten(1), module(tensor))


class Branches(nn.Module):
    def forward(self, tensor):
        return tensor if tensor.sum() > 0 else -tensor


def test_what_cannot_be_captured_is_refused(cases):
    network, inputs = cases["dense"]
    with pytest.raises(InvalidParameterError, match=r"module must be a torch.nn.Module. Got 'int'"):
        capture(3, inputs)
    with pytest.raises(InvalidParameterError, match="in evaluation mode"):
        capture(nn.Linear(2, 2), inputs)
    with pytest.raises(InvalidParameterError, match="inputs must be at least one row"):
        capture(network, {"input": np.zeros((0, 16), np.float32)})
    with pytest.raises(ModelError, match="torch cannot trace Branches"):
        capture(Branches().eval(), inputs)

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.quantization.training.prepare import batches, is_dense, prepare, products, quantizers


def placed(prepared):
    return {part.name: part.scheme.bits for part in quantizers(prepared).values()}


def weights(prepared):
    return {part.name: part.scheme.bits for part in products(prepared).values()}


@pytest.mark.parametrize("name", ["dense", "convolutional", "encoder"])
def test_at_8_bits_the_answers_hardly_move(cases, answers, name):
    network, inputs = cases[name]
    prepared = prepare(network, inputs)
    with torch.no_grad():
        logits = prepared(*map(torch.from_numpy, inputs.values())).numpy()
    assert not prepared.training
    error = np.sqrt(np.mean(np.square(logits - answers[name]))) / answers[name].std()
    assert 0 < error < 0.02


def test_convolutions_read_and_write_grids_and_sums_read_them(cases):
    prepared = prepare(*cases["convolutional"], weight_bits=4, activation_bits=3)
    # The middle product is no edge; nothing multiplies the output of the second, so it is carried in 8 bits.
    assert weights(prepared) == {"first": 8, "second.0": 4, "head": 8}
    assert placed(prepared) == {"images": 8, "relu": 3, "product_conv2d_1": 8, "mean": 8}
    add = next(node for node in prepared.graph.nodes if node.name == "add")
    assert all(node.target in quantizers(prepared) for node in add.all_input_nodes)
    assert not is_dense(prepared)


def test_in_a_dense_network_sums_read_fp32(cases):
    prepared = prepare(*cases["encoder"], weight_bits=4, activation_bits=4)
    assert list(weights(prepared).values()) == [8, 4, 4, 4, 8]
    add = next(node for node in prepared.graph.nodes if node.name == "add_1")
    assert not any(node.target in quantizers(prepared) for node in add.all_input_nodes)
    assert is_dense(prepared)


def test_edges_can_be_treated_like_the_rest_and_layers_kept(cases):
    bare = prepare(*cases["convolutional"], weight_bits=4, activation_bits=4, edge_bits=None)
    assert set(weights(bare).values()) == {4}
    kept = prepare(*cases["convolutional"], weight_bits=4, keep=["second.0"])
    assert weights(kept) == {"first": 8, "head": 8}


class Pooled(nn.Module):
    """A convolution whose output is pooled and reshaped before the next product reads it."""

    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 16, 5)
        self.activation, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)

    def forward(self, images):
        return self.head(self.pool(self.activation(self.convolution(images))).flatten(1))


def test_a_grid_goes_along_where_numbers_only_move(rng):
    torch.manual_seed(0)
    network = Pooled().eval()
    prepared = prepare(network, {"input": rng.standard_normal((8, 1, 8, 8)).astype(np.float32)}, activation_bits=4)
    assert len(quantizers(prepared)) == 2
    calls = [node.target for node in prepared.graph.nodes if node.target in quantizers(prepared)]
    assert calls == ["quantizer_0", "quantizer_1", "quantizer_1", "quantizer_1"]


def test_a_grid_after_relu_starts_at_0(cases):
    prepared = prepare(*cases["convolutional"], activation_bits=4)
    grids = {part.name: part.grid() for part in quantizers(prepared).values()}
    assert grids["relu"].zero_point == 0
    assert grids["images"].zero_point > 0


def test_the_callers_module_is_left_alone(cases):
    network, inputs = cases["convolutional"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prepared = prepare(network, inputs, weight_bits=2)
    prepared.train()(*(torch.from_numpy(array) for array in inputs.values()))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_batches_hold_every_row_once():
    inputs = {"a": np.arange(10), "b": np.arange(10) * 2}
    seen = list(batches(inputs, 4))
    assert [len(batch[0]) for batch in seen] == [4, 4, 2]
    np.testing.assert_array_equal(torch.cat([batch[1] for batch in seen]), inputs["b"])


def test_bad_input_is_refused(cases):
    network, inputs = cases["dense"]
    for name in ("weight_bits", "activation_bits", "edge_bits"):
        with pytest.raises(InvalidParameterError, match=f"{name} must be 2 to 8. Got 9"):
            prepare(network, inputs, **{name: 9})
    with pytest.raises(InvalidParameterError, match=r"keep must be names out of .* Got \['body'\]"):
        prepare(network, inputs, keep=["body"])
    with pytest.raises(ModelError, match="must hold a linear layer or a convolution"):
        prepare(nn.Flatten().eval(), inputs)


def test_numbers_that_are_not_finite_are_refused(cases):
    _, inputs = cases["dense"]
    broken = nn.Sequential(nn.Linear(16, 5)).eval()
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match="weight of '0' must be finite"):
        prepare(broken, inputs)
    with pytest.raises(ModelError, match="input of the quantizer at 'input_1' must be finite"):
        prepare(nn.Sequential(nn.Linear(16, 5)).eval(), {"input": np.full((4, 16), np.inf, np.float32)})

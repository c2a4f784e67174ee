import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError
from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts, activate
from halve.techniques.compression.mixture_of_experts.router import route


def layer(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"inputs": 8, "outputs": 6, "experts": 4, "active": 2, "neurons": 5}
    return MixtureOfExperts(MixtureConfig(**{**sizes, **changes}))


def one_by_one(mixture, tokens):
    """The definition: token by token, expert by expert, without groups."""
    outputs = []
    for token in tokens:
        answer = mixture.bias.clone()
        if mixture.shared_first is not None:
            hidden = activate(mixture.shared_first(token), mixture.config.activation)
            answer = answer + mixture.shared_second(hidden)
        weights, indices = route(mixture.router(token)[None], active=mixture.config.active)
        for weight, expert in zip(weights[0], indices[0], strict=True):
            hidden = activate(
                mixture.first_weight[expert] @ token + mixture.first_bias[expert], mixture.config.activation
            )
            part = mixture.second_weight[expert] @ hidden + mixture.second_bias[expert]
            answer = answer + (part if mixture.config.gating == "whole" else weight * part)
        outputs.append(answer)
    return torch.stack(outputs)


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(1, 12),
    experts=st.integers(1, 5),
    active=st.integers(1, 5),
    shared=st.integers(0, 3),
    activation=st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"]),
    gating=st.sampled_from(["softmax", "whole"]),
)
def test_grouped_is_the_same_as_token_by_token(seed, tokens, experts, active, shared, activation, gating):
    mixture = layer(
        seed,
        experts=experts,
        active=min(active, experts),
        shared_neurons=shared,
        activation=activation,
        gating=gating,
    )
    inputs = torch.randn(tokens, 8)
    with torch.no_grad():
        torch.testing.assert_close(mixture(inputs), one_by_one(mixture, inputs), atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), tokens=st.integers(1, 20), factor=st.floats(0.05, 3.0))
def test_every_token_reaches_its_experts_or_is_counted_as_dropped(seed, tokens, factor):
    mixture = layer(seed, capacity_factor=factor)
    mixture(torch.randn(tokens, 8))
    last = mixture.last_routing
    assert int(last.visits.sum()) + last.dropped == tokens * 2
    assert int(last.visits.max()) <= -(-factor * tokens * 2 // 4)


def test_without_a_limit_nothing_is_dropped():
    mixture = layer()
    mixture(torch.randn(3, 7, 8))
    assert mixture.last_routing.dropped == 0
    assert int(mixture.last_routing.visits.sum()) == 21 * 2


def test_a_dropped_token_gets_the_bias_and_the_shared_answer_only():
    mixture = layer(active=1, capacity_factor=0.01, shared_neurons=3)
    with torch.no_grad():
        mixture.router.weight.zero_()
        mixture.router.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        inputs = torch.randn(3, 8)
        outputs = mixture(inputs)
        # Room for ceil(0.01 * 3 / 4) = 1 token: the first.
        left = mixture.shared_second(activate(mixture.shared_first(inputs), "gelu")) + mixture.bias
    assert mixture.last_routing.dropped == 2
    torch.testing.assert_close(outputs[1:], left[1:])
    assert not torch.allclose(outputs[0], left[0])


def test_masked_tokens_visit_no_expert_and_change_nothing_for_others():
    mixture = layer()
    inputs = torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    with torch.no_grad():
        masked, whole = mixture(inputs, mask), mixture(inputs)
        mixture(inputs, mask)
    torch.testing.assert_close(masked[mask], whole[mask])
    torch.testing.assert_close(masked[~mask], mixture.bias.detach().expand(3, -1))
    assert int(mixture.last_routing.visits.sum()) == 7 * 2
    assert mixture.last_routing.dropped == 0
    assert mixture.last_routing.logits.shape == (7, 4)


def test_experts_without_tokens_multiply_nothing(monkeypatch):
    mixture = layer(active=1)
    with torch.no_grad():
        mixture.router.weight.zero_()
        mixture.router.bias.copy_(torch.tensor([0.0, 0, 5, 0]))
    rows = []
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, *rest: rows.append(len(x)) or linear(x, *rest))
    mixture(torch.randn(9, 8))
    # The router, and the two products of the one expert that was chosen.
    assert rows == [9, 9, 9]


def test_all_parts_learn_and_whole_gates_teach_the_router():
    for gating in ("softmax", "whole"):
        mixture = layer(gating=gating, shared_neurons=2)
        mixture(torch.randn(40, 8)).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in mixture.parameters()), gating


def test_training_and_evaluation_answer_alike():
    mixture = layer()
    inputs = torch.randn(7, 8)
    trained = mixture.train()(inputs)
    with torch.no_grad():
        torch.testing.assert_close(mixture.eval()(inputs), trained)


def test_a_copy_leaves_the_batch_behind():
    mixture = layer()
    outputs = mixture(torch.randn(7, 8))
    assert outputs.requires_grad
    assert copy.deepcopy(mixture).last_routing is None
    assert mixture.last_routing is not None


def test_no_token_is_no_answer():
    assert layer()(torch.zeros(0, 8)).shape == (0, 6)


def test_another_number_of_features_is_named():
    with pytest.raises(InvalidParameterError, match="8 features"):
        layer()(torch.zeros(3, 7))


class Classifier(nn.Module):
    """int64 (batch, tokens) -> logits (batch, 6)."""

    def __init__(self, mixture):
        super().__init__()
        self.embedding, self.mixture = nn.Embedding(30, 8), mixture

    def forward(self, input_ids):
        return self.mixture(self.embedding(input_ids)).mean(1)


EXPORTED = {
    "whole": {},
    "softmax": {"gating": "softmax"},
    "shared": {"shared_neurons": 3, "active": 1},
    "capacity": {"capacity_factor": 0.6, "activation": "relu"},
}


@pytest.mark.parametrize("kind", EXPORTED)
def test_the_exported_graph_answers_alike_for_any_batch_and_length(kind, tmp_path):
    from halve.techniques.compression.quantization import export_onnx

    network = Classifier(layer(**EXPORTED[kind])).eval()
    export_onnx(network, {"input_ids": np.random.default_rng(0).integers(0, 30, (4, 5))}, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for shape in ((1, 1), (1, 9), (7, 2), (3, 40)):
        ids = np.random.default_rng(1).integers(0, 30, shape)
        with torch.inference_mode():
            expected = network(torch.from_numpy(ids)).numpy()
        np.testing.assert_allclose(session.run(None, {"input_ids": ids})[0], expected, atol=1e-5)


def test_the_exported_experts_multiply_only_the_rows_that_chose_them(tmp_path):
    from halve.techniques.compression.quantization import export_onnx

    network = Classifier(layer(active=1)).eval()
    ids = np.random.default_rng(0).integers(0, 30, (4, 5))
    export_onnx(network, {"input_ids": ids}, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    gathered = {out for node in model.graph.node if node.op_type == "Gather" for out in node.output}
    products = [node for node in model.graph.node if node.op_type == "Gemm" and node.input[0] in gathered]
    assert len(products) == 4
    for node in products:
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    _, *parts = session.run(None, {"input_ids": ids})
    with torch.inference_mode():
        network(torch.from_numpy(ids))
    assert sorted(map(len, parts)) == sorted(network.mixture.last_routing.visits.tolist())
    assert sum(map(len, parts)) == 20

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.mixture_of_experts.convert import auxiliary_losses, convert
from halve.techniques.compression.mixture_of_experts.find import mixtures


def run(module, inputs):
    with torch.inference_mode():
        return module(*map(torch.from_numpy, inputs.values())).numpy()


@pytest.fixture
def cases(encoder, bert_like, sequence, tokens, hidden, rows):
    return {"encoder": (encoder, tokens), "bert": (bert_like, hidden), "sequence": (sequence, rows)}


@pytest.mark.parametrize("kind", ["encoder", "bert", "sequence"])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_with_all_experts_active_it_is_the_dense_module(cases, kind, share):
    module, inputs = cases[kind]
    converted = convert(module, inputs, experts=4, active=4, shared_neurons_share=share)
    np.testing.assert_allclose(run(converted.module, inputs), run(module, inputs), atol=2e-5)
    assert all(row.relative_error < 1e-9 for row in converted.layers)


@pytest.mark.parametrize("kind", ["encoder", "bert", "sequence"])
def test_fewer_experts_are_an_approximation_that_more_experts_improve(cases, kind):
    module, inputs = cases[kind]
    errors = []
    for active in (1, 2, 3):
        converted = convert(module, inputs, experts=4, active=active)
        errors.append(np.mean([row.relative_error for row in converted.layers]))
        assert all(row.captured_share <= row.oracle_share + 1e-6 for row in converted.layers)
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 1.5


def test_the_module_stays_as_it_was(encoder, tokens):
    before = copy.deepcopy(encoder.state_dict())
    convert(encoder, tokens, experts=4, active=2)
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_router_that_can_tell_finds_the_expert():
    # Two halves of the neurons, each awake for one sign of the first feature.
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        module[0].weight.mul_(0.1)
        module[0].weight[:8, 0], module[0].weight[8:, 0] = 3.0, -3.0
        module[0].bias.zero_()
    inputs = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    inputs[:, 0] = np.sign(inputs[:, 0]) * (1 + np.abs(inputs[:, 0]))
    (row,) = convert(module, {"input": inputs}, experts=2, active=1).layers
    assert row.relative_error < 0.01
    assert row.captured_share == pytest.approx(row.oracle_share, abs=1e-3)


def test_only_the_layers_asked_for(encoder, tokens):
    name = "encoder.layers.1.linear1"
    seen = []
    converted = convert(
        encoder, tokens, experts=4, active=2, layers=[name], progress=lambda layer, left: seen.append((layer, left))
    )
    assert list(mixtures(converted.module)) == [name]
    assert seen == [(name, 0)]


def test_the_table_counts_operations(sequence, rows):
    (row,) = convert(sequence, rows, experts=4, active=1, shared_neurons_share=0.3).layers
    # 30 % of 24 are 7.2; the next larger number that leaves a multiple of 4 is 8, which leaves 4 neurons per expert.
    assert (row.neurons, row.shared_neurons) == (24, 8)
    assert row.dense_flops == 2 * 24 * (12 + 4)
    assert row.active_flops == 2 * 12 * (12 + 4) + 2 * 12 * 4


def test_padding_calibrates_nothing(encoder, tokens):
    other = dict(tokens)
    other["input_ids"] = np.where(tokens["attention_mask"] == 1, tokens["input_ids"], 7)
    one, two = (convert(encoder, inputs, experts=4, active=2) for inputs in (tokens, other))
    for key, value in one.module.state_dict().items():
        torch.testing.assert_close(value, two.module.state_dict()[key], atol=2e-4, rtol=2e-4)


def test_the_same_seed_gives_the_same_module(sequence, rows):
    one, two = (convert(sequence, rows, experts=4, active=2, seed=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True))


def test_a_converted_encoder_is_exported(encoder, tokens, tmp_path):
    from halve.techniques.compression.quantization import export_onnx

    settings = {"experts": 2, "active": 1, "shared_neurons_share": 0.25, "layers": ["encoder.layers.0.linear1"]}
    converted = convert(encoder, tokens, **settings).module
    export_onnx(converted, tokens, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for batch, length in ((1, 4), (5, 13)):
        other = {"input_ids": np.full((batch, length), 9), "attention_mask": np.ones((batch, length), dtype=np.int64)}
        np.testing.assert_allclose(session.run(None, other)[0], run(converted, other), atol=1e-4)


def test_auxiliary_losses_are_summed_over_layers(encoder, tokens):
    converted = convert(encoder, tokens, experts=4, active=2).module.train()
    converted(*map(torch.from_numpy, tokens.values()))
    one = auxiliary_losses(converted, load_balance=1.0, z=0.0)
    both = auxiliary_losses(converted, load_balance=1.0, z=1.0)
    # Two layers, at least about 1 each: 1 is an even share.
    assert 1.5 < one.item() < 8
    assert both.item() > one.item()
    both.backward()
    assert all(layer.router.weight.grad.abs().sum() > 0 for layer in mixtures(converted).values())


def test_losses_before_a_batch_or_without_a_mixture_are_refused(sequence, rows):
    converted = convert(sequence, rows, experts=4, active=2).module
    with pytest.raises(ModelError, match="must have routed a batch"):
        auxiliary_losses(converted)
    with pytest.raises(ModelError, match="must hold a mixture"):
        auxiliary_losses(sequence)
    with pytest.raises(InvalidParameterError, match="load_balance"):
        auxiliary_losses(converted, load_balance=-1)


def test_what_cannot_be_converted_is_named(sequence, rows):
    with pytest.raises(InvalidParameterError, match="active"):
        convert(sequence, rows, experts=4, active=5)
    with pytest.raises(InvalidParameterError, match="layers"):
        convert(sequence, rows, layers=["7"])
    with pytest.raises(InvalidParameterError, match="at least one row"):
        convert(sequence, {"input": np.zeros((0, 12), dtype=np.float32)})
    with pytest.raises(InvalidParameterError, match="evaluation mode"):
        convert(copy.deepcopy(sequence).train(), rows)
    with pytest.raises(InvalidParameterError, match="experts"):
        convert(sequence, rows, experts=30, active=2)
    with pytest.raises(ModelError, match="dense feed-forward"):
        convert(nn.Linear(12, 4).eval(), rows)
    with pytest.raises(ModelError, match="finite"):
        convert(sequence, {"input": np.full((3, 12), np.nan, dtype=np.float32)}, experts=4, active=2)


def test_learning_from_the_parent_brings_back_what_was_lost_and_keeps_experts_busy(sequence):
    torch.manual_seed(0)
    inputs = torch.randn(512, 12)
    with torch.no_grad():
        answers = sequence(inputs)
    converted = convert(sequence, {"input": inputs.numpy()}, experts=4, active=1).module
    optimizer = torch.optim.Adam(converted.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = (converted(inputs) - answers).square().mean()
        optimizer.zero_grad()
        (loss + auxiliary_losses(converted)).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    (layer,) = mixtures(converted).values()
    assert int(layer.last_routing.visits.min()) > 512 // 20

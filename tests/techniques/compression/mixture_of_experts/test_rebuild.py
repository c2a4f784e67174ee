import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.mixture_of_experts.convert import convert
from halve.techniques.compression.mixture_of_experts.rebuild import Specification, rebuild, specification_of


def test_a_rebuilt_module_with_the_saved_weights_answers_the_same(encoder, tokens, tmp_path):
    converted = convert(encoder, tokens, experts=4, active=2, shared_neurons_share=0.25).module
    save_file({name: value.contiguous() for name, value in converted.state_dict().items()}, tmp_path / "w.safetensors")
    text = specification_of(converted).to_json()
    with torch.no_grad():
        # The parent's own weights do not matter.
        for parameter in encoder.parameters():
            parameter.zero_()
    rebuilt = rebuild(encoder, Specification.from_json(text))
    rebuilt.load_state_dict(load_file(tmp_path / "w.safetensors"))
    inputs = [torch.from_numpy(array) for array in tokens.values()]
    with torch.inference_mode():
        assert torch.equal(rebuilt(*inputs), converted(*inputs))


def test_json_there_and_back(sequence, rows):
    specification = specification_of(convert(sequence, rows, experts=4, active=2).module)
    text = specification.to_json()
    assert json.loads(text)["format"] == "halve.mixture/1"
    assert Specification.from_json(text) == specification
    assert specification.layers["0"].experts == 4


def test_a_parent_of_another_shape_is_refused(sequence, encoder, rows):
    specification = specification_of(convert(sequence, rows, experts=4, active=2).module)
    with pytest.raises(ModelError, match="'0'"):
        rebuild(encoder, specification)


def test_a_module_without_a_mixture_has_none(sequence):
    with pytest.raises(ModelError, match="mixture"):
        specification_of(sequence)


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"format": "halve.mixture/9", "layers": {}}',
        '{"format": "halve.mixture/1", "layers": {}}',
        '{"format": "halve.mixture/1", "layers": {"0": {"inputs": 3}}}',
        '{"format": "halve.mixture/1", "layers": {"0": {"unknown": 3}}}',
    ],
)
def test_a_damaged_document_is_named(text):
    with pytest.raises(InvalidParameterError):
        Specification.from_json(text)

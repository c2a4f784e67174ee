import numpy as np
import pytest
import torch

from halve.core import TensorAnswerer
from halve.engines.onnxruntime import OnnxRuntimeEngine
from halve.engines.torch import TorchEngine, load_weights, save_weights
from halve.errors import AnswerError, ModelError


@pytest.fixture
def load(make_model, folder, request):
    def load(entry, *names, threads=1, **options):
        model = make_model("torch", *names, entry=entry, **options)
        answerer = TorchEngine().load(model, threads=threads, folder=folder)
        request.addfinalizer(answerer.close)
        return answerer

    return load


def test_the_weights_file_is_loaded_not_the_random_start(load, images):
    first = load("halve_tiny_models:convolution", "convolution.safetensors").answer(images)
    torch.manual_seed(99)
    again = load("halve_tiny_models:convolution", "convolution.safetensors").answer(images)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


def test_torch_and_onnxruntime_answer_alike(load, make_model, folder, texts):
    ours = load("halve_tiny_models:encoder", "encoder.safetensors", "tokenizer.json", text=True).answer(texts)
    model = make_model("onnxruntime", "encoder.onnx", "tokenizer.json", text=True)
    other = OnnxRuntimeEngine().load(model, threads=1, folder=folder)
    np.testing.assert_allclose(other.answer(texts).probabilities, ours.probabilities, atol=1e-5)
    other.close()


def test_the_module_is_in_evaluation_mode_and_shown(load):
    answerer = load("halve_tiny_models:convolution", "convolution.safetensors")
    assert isinstance(answerer, TensorAnswerer)
    assert isinstance(answerer.runtime_model, torch.nn.Module)
    assert not answerer.runtime_model.training
    assert not any(parameter.requires_grad for parameter in answerer.runtime_model.parameters())


def test_an_in_place_module_cannot_reach_the_payload(load, images):
    before = [image.copy() for image in images]
    load("halve_tiny_models:in_place").answer(images)
    load("halve_tiny_models:in_place").answer(images[:1])
    np.testing.assert_array_equal(before, images)


def test_nan_names_the_input(load, images):
    bad = np.full((1, 8, 8), 150, np.float32)
    with pytest.raises(AnswerError, match="input 2: its logits hold NaN or infinity"):
        load("halve_tiny_models:in_place").answer([images[0], images[1], bad, bad])


def test_images_of_several_sizes_share_a_batch_where_the_module_takes_them(load):
    payloads = [np.ones((1, 2, 2), np.float32), -np.ones((1, 5, 5), np.float32)]
    assert load("halve_tiny_models:image_sums").answer(payloads).answers.tolist() == [0, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set_again_before_every_answer(load, images, threads):
    answerer = load("halve_tiny_models:convolution", "convolution.safetensors", threads=threads)
    torch.set_num_threads(3 - threads)
    answerer.answer(images)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("halve_tiny_models:not_a_module", r"must return a torch.nn.Module. Got dict"),
        ("halve_tiny_models:raises", r"raised RuntimeError\('no weights here'\)"),
        ("halve_tiny_models:absent", r"cannot be imported: AttributeError"),
        ("halve_no_such_module:f", r"cannot be imported: ModuleNotFoundError"),
        ("halve_tiny_models:NOT_A_FUNCTION", r"must be a function. Got 3"),
        ("halve_tiny_models", r"must be 'module:function'. Got 'halve_tiny_models'"),
        (None, r"must be 'module:function'. Got None"),
    ],
)
def test_an_entry_that_builds_no_module_is_refused(load, entry, problem):
    with pytest.raises(ModelError, match=problem):
        load(entry)


def test_weights_of_another_module_are_refused(load):
    with pytest.raises(ModelError, match=r"encoder\.safetensors does not fit the module: .*size mismatch for head"):
        load("halve_tiny_models:convolution", "encoder.safetensors")


def test_weights_of_only_a_part_of_the_module_are_refused(tiny, tmp_path):
    module = tiny.convolution()
    save_weights(torch.nn.ModuleDict({"head": module.head}), tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match=r"part\.safetensors does not fit the module: .*convolution\.weight"):
        load_weights(module, tmp_path / "part.safetensors")


def test_a_damaged_weights_file_is_refused(load, folder):
    (folder / "damaged.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(ModelError, match=r"damaged\.safetensors does not fit the module"):
        load("halve_tiny_models:convolution", "damaged.safetensors")


def test_tied_weights_survive_a_round_trip_and_give_the_same_bytes(tiny, tmp_path):
    module, other = tiny.encoder(), tiny.encoder()
    save_weights(module, tmp_path / "a.safetensors")
    save_weights(module, tmp_path / "b.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert other.tied.weight is other.embedding.weight
    torch.testing.assert_close(other.state_dict(), module.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_model_that_returns_no_tensor_is_refused(load, tiny, images, monkeypatch):
    class Dictionary(torch.nn.Module):
        def forward(self, images):
            return {"logits": images}

    monkeypatch.setattr(tiny, "dictionary", Dictionary, raising=False)
    with pytest.raises(AnswerError, match=r"forward must return a tensor of logits. Got dict"):
        load("halve_tiny_models:dictionary").answer(images)


def test_answering_after_closing_says_so(load, images):
    answerer = load("halve_tiny_models:convolution", "convolution.safetensors")
    answerer.close()
    with pytest.raises(AnswerError, match="model 'tiny' is closed"):
        answerer.answer(images)

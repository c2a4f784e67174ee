import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from halve.demo.networks import residual_network, small_network
from halve.techniques.compression.quantization import export_onnx


def teacher(*, flips=False):
    torch.manual_seed(0)
    return residual_network(widths=(4, 8), blocks=1, classes=3, flips=flips).eval()


def small():
    torch.manual_seed(0)
    return small_network(widths=(4, 8), classes=3, side_pixels=28).eval()


@pytest.mark.parametrize("network", [teacher(), teacher(flips=True), small()], ids=["teacher", "flips", "small"])
def test_exported_networks_answer_as_the_module_at_every_batch_size(network, tmp_path):
    import onnxruntime

    images = np.random.default_rng(0).random((16, 1, 28, 28), dtype=np.float32)
    path = tmp_path / "network.onnx"
    export_onnx(network, {"input": images[:2]}, path)
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 2, 16):
        with torch.inference_mode():
            expected = network(torch.from_numpy(images[:count]))
        (logits,) = session.run(None, {"input": images[:count]})
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


def test_the_teacher_answers_the_mean_over_five_crops():
    network, images = teacher(), torch.rand(2, 1, 28, 28)
    padded = pad(images, (1, 1, 1, 1))
    crops = [padded[..., top : top + 28, left : left + 28] for top, left in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
    with torch.inference_mode():
        expected = torch.stack([network.network(crop) for crop in crops]).mean(dim=0)
        assert torch.allclose(network(images), expected, atol=1e-6)


def test_with_flips_an_image_and_its_mirror_image_get_the_same_answer():
    network, images = teacher(flips=True), torch.rand(2, 1, 28, 28)
    with torch.inference_mode():
        assert torch.allclose(network(images), network(images.flip(-1)), atol=1e-6)
        assert not torch.allclose(teacher()(images), teacher()(images.flip(-1)), atol=1e-6)


def test_while_training_the_teacher_sees_one_view():
    network, images = teacher().train(), torch.rand(4, 1, 28, 28)
    assert torch.allclose(network(images), network.network(images))

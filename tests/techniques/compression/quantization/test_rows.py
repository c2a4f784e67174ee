import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halve.techniques.compression.quantization.rows import Window, patches, window_of


def test_golden():
    image = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    window = Window(kernel=(2, 2), strides=(1, 1), dilations=(1, 1), pads=((0, 0), (0, 0)))
    assert patches(image, window).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(7, 9), st.integers(7, 9))
def test_patches_times_kernels_are_the_convolution(kernel, stride, dilation, pad, height, width):
    rng = np.random.default_rng(kernel)
    images = rng.standard_normal((2, 3, height, width)).astype(np.float32)
    kernels = rng.standard_normal((4, 3, kernel, kernel)).astype(np.float32)
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4}
    window = window_of(attributes, kernels.shape[2:], images.shape[2:])
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(images), torch.from_numpy(kernels), stride=stride, dilation=dilation, padding=pad
    ).numpy()
    products = patches(images, window) @ kernels.reshape(4, -1).T
    np.testing.assert_allclose(products, np.moveaxis(expected, 1, -1).reshape(-1, 4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [1, 3])
def test_any_number_of_axes(axes, rng):
    signal = rng.standard_normal((2, 3, *(6,) * axes)).astype(np.float32)
    kernels = rng.standard_normal((4, 3, *(2,) * axes)).astype(np.float32)
    convolve = {1: torch.nn.functional.conv1d, 3: torch.nn.functional.conv3d}[axes]
    expected = np.moveaxis(convolve(torch.from_numpy(signal), torch.from_numpy(kernels)).numpy(), 1, -1)
    products = patches(signal, window_of({}, kernels.shape[2:], signal.shape[2:])) @ kernels.reshape(4, -1).T
    np.testing.assert_allclose(products, expected.reshape(-1, 4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("auto_pad", "pads"),
    [
        (b"SAME_UPPER", ((0, 1), (1, 1))),  # 6 by steps of 2: 3 patches need 7; 5: 3 patches need 7.
        (b"SAME_LOWER", ((1, 0), (1, 1))),
        (b"VALID", ((0, 0), (0, 0))),
    ],
)
def test_padding_that_depends_on_the_input(auto_pad, pads):
    window = window_of({"auto_pad": auto_pad, "strides": [2, 2]}, (3, 3), (6, 5))
    assert window.pads == pads

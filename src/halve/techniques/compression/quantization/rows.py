"""A product with constant weights as one matrix product: what GPTQ and AdaRound look at.

A convolution multiplies each patch of its input with its kernel. Write every patch as a row ("im2col") and the
kernel of each output channel as a row too, and the convolution is patches @ kernels.T, like a dense layer.

Source: Chellapilla et al. 2006, "High performance convolutional neural networks for document processing".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from halve.techniques.compression.quantization.affine import FloatArray


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a kernel moves over its input, one number per spatial axis.

    Args:
        kernel: Its lengths.
        strides: Steps between patches.
        dilations: Steps between neighbours in a patch.
        pads: Zeros before and after each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]


def window_of(attributes: Mapping[str, Any], kernel: Sequence[int], spatial: Sequence[int]) -> Window:
    """Return the window of an ONNX Conv.

    Args:
        attributes: Of the node.
        kernel: Spatial shape of the weight.
        spatial: Spatial shape of the input, which `auto_pad` depends on.
    """
    ones = (1,) * len(kernel)
    strides = tuple(attributes.get("strides") or ones)
    dilations = tuple(attributes.get("dilations") or ones)
    auto_pad = attributes.get("auto_pad", b"NOTSET")
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = []
        for length, size, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
            total = max((-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length, 0)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if auto_pad == b"SAME_UPPER" else (more, less))
    else:
        flat = [0] * (2 * len(kernel)) if auto_pad == b"VALID" else attributes.get("pads") or [0] * (2 * len(kernel))
        pads = list(zip(flat[: len(kernel)], flat[len(kernel) :], strict=True))
    return Window(kernel=tuple(kernel), strides=strides, dilations=dilations, pads=tuple(pads))


def patches(tensor: FloatArray, window: Window) -> FloatArray:
    """Return every patch as a row.

    Args:
        tensor: (batch, channels, *spatial).
        window: How the kernel moves.

    Returns:
        (batch * positions, channels * kernel).
    """
    spatial = tuple(range(2, tensor.ndim))
    padded = np.pad(tensor, ((0, 0), (0, 0), *window.pads))
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(window.kernel, window.dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=spatial)
    steps = [slice(None, None, stride) for stride in window.strides]
    inner = [slice(None, None, dilation) for dilation in window.dilations]
    views = views[(slice(None), slice(None), *steps, *inner)]
    order = (0, *spatial, 1, *range(tensor.ndim, views.ndim))
    return np.ascontiguousarray(views.transpose(order)).reshape(-1, tensor.shape[1] * int(np.prod(window.kernel)))

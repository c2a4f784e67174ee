"""Affine quantization on torch tensors: `affine`, bit for bit, wherever torch computes.

The same nouns with tensors inside, and the same functions. Scales and zero points are few and are computed by the
NumPy oracle itself; what touches every number (divide, round, clamp, multiply) is written again in torch. Two
details keep the bits equal: the tensor is divided by the scale, not multiplied by 1 / s as torch's own
`fake_quantize_per_tensor_affine` does, and every step is float32. Nothing here has a gradient of use: rounding is flat
almost everywhere. Training replaces that gradient; see `training`.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from halve.techniques.compression.quantization import affine
from halve.techniques.compression.quantization.affine import Scheme

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchGrid:
    """`affine.Grid` with tensors.

    Args:
        scheme: The integers.
        scale: float32, > 0; shape () or one per channel or group.
        zero_point: int32, the shape and device of scale.
    """

    scheme: Scheme
    scale: "torch.Tensor"
    zero_point: "torch.Tensor"

    def expanded(self, shape: tuple[int, ...]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return scale and zero point such that they broadcast with a tensor of this shape."""
        import torch

        repeat = partial(torch.repeat_interleave, dim=-1)
        return (
            affine.expand(self.scale, self.scheme, shape, repeat),
            affine.expand(self.zero_point, self.scheme, shape, repeat),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchQuantizedTensor:
    """`affine.QuantizedTensor` with tensors.

    Args:
        values: int8 where the scheme is signed, else uint8; the shape of the real tensor.
        grid: Their meaning.
    """

    values: "torch.Tensor"
    grid: TorchGrid

    def real(self) -> "torch.Tensor":
        """Return what the integers stand for, float32."""
        return dequantize(self.values, self.grid)


def to_torch(grid: affine.Grid, *, device: "torch.device | None" = None) -> TorchGrid:
    """Return a NumPy grid as tensors on a device, the CPU by default."""
    import torch

    return TorchGrid(
        scheme=grid.scheme,
        scale=torch.tensor(grid.scale, device=device),
        zero_point=torch.tensor(grid.zero_point, device=device),
    )


def to_numpy(tensor: TorchQuantizedTensor) -> affine.QuantizedTensor:
    """Return the same integers on the same grid as NumPy arrays."""
    grid = affine.Grid(
        scheme=tensor.grid.scheme,
        scale=tensor.grid.scale.detach().cpu().numpy(),
        zero_point=tensor.grid.zero_point.cpu().numpy(),
    )
    return affine.QuantizedTensor(values=tensor.values.cpu().numpy(), grid=grid)


def grid_of_range(low: "torch.Tensor", high: "torch.Tensor", scheme: Scheme) -> TorchGrid:
    """Return the grid that covers [low, high], widened to hold 0; see `affine.grid_of_range`.

    The bounds travel to the CPU and the grid back: a few numbers, and the oracle's own arithmetic.
    """
    grid = affine.grid_of_range(low.detach().cpu().numpy(), high.detach().cpu().numpy(), scheme)
    return to_torch(grid, device=low.device)


def grid_of_tensor(tensor: "torch.Tensor", scheme: Scheme) -> TorchGrid:
    """Return the grid that covers a tensor's own minimum and maximum; see `affine.grid_of_tensor`."""
    import torch

    affine.check_shape(tuple(tensor.shape), scheme)
    if scheme.group_size is not None:
        groups = torch.split(tensor, scheme.group_size, dim=-1)  # The last may be narrower.
        low = torch.stack([group.amin(dim=-1) for group in groups], dim=-1)
        high = torch.stack([group.amax(dim=-1) for group in groups], dim=-1)
    elif scheme.axis is not None:
        rows = tensor.movedim(scheme.axis, 0).flatten(1) if tensor.ndim > 1 else tensor.unsqueeze(1)
        low, high = torch.aminmax(rows, dim=1)
    else:
        low, high = torch.aminmax(tensor)
    return grid_of_range(low, high, scheme)


def quantize(tensor: "torch.Tensor", grid: TorchGrid) -> "torch.Tensor":
    """Return q = clamp(round(r / s) + z): int8 where the scheme is signed, else uint8; see `affine.quantize`."""
    import torch

    return _integers(tensor, grid).to(torch.int8 if grid.scheme.signed else torch.uint8)


def dequantize(values: "torch.Tensor", grid: TorchGrid) -> "torch.Tensor":
    """Return r_hat = s (q - z), float32."""
    scale, zero_point = grid.expanded(tuple(values.shape))
    return (values.int() - zero_point).float() * scale


def fake_quantize(tensor: "torch.Tensor", grid: TorchGrid) -> "torch.Tensor":
    """Return the tensor rounded to the grid, float32: the same bits as quantized, then dequantized."""
    scale, zero_point = grid.expanded(tuple(tensor.shape))
    return (_integers(tensor, grid) - zero_point) * scale


def quantize_tensor(tensor: "torch.Tensor", scheme: Scheme) -> TorchQuantizedTensor:
    """Return the tensor on the grid of its own range: round to nearest."""
    grid = grid_of_tensor(tensor, scheme)
    return TorchQuantizedTensor(values=quantize(tensor, grid), grid=grid)


def _integers(tensor: "torch.Tensor", grid: TorchGrid) -> "torch.Tensor":
    """Return the integers as float32, which holds all of them exactly."""
    scale, zero_point = grid.expanded(tuple(tensor.shape))
    return (tensor.float() / scale).round().add(zero_point).clamp(grid.scheme.lowest, grid.scheme.highest)

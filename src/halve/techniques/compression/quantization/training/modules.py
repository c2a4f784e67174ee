"""The two modules that a prepared network is made of: an activation's quantizer, and a product with its norm.

In training mode both compute in fp32 on rounded numbers, with the gradients of `learned_step`. In evaluation mode a
product computes as the integer kernel does: integers times integers, summed exactly (float32 holds integers to 2^24),
plus an int32 bias, times one scale. What is evaluated is then what is exported, up to the last bit of that scale.

Batch norm after a product is an affine map per output channel, y = f (w x) + (beta - f mean), f = gamma / sqrt(var +
eps). With one weight step per output channel it folds without rounding anew: f s_w is the folded step and the
integers stay. So training keeps the norm as it is, with batch statistics and then with frozen ones, and the folded
product is exact at any moment.

Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2 (folding).
"""

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - modules are classes; only `training` imports this module, inside functions.
from torch import nn  # noqa: TID253

from halve.techniques.compression.quantization.affine import (
    SMALLEST_SCALE,
    Grid,
    QuantizedTensor,
    Scheme,
)
from halve.techniques.compression.quantization.training.learned_step import fake_quantize, initial_weight_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from halve.techniques.compression.quantization.affine import FloatArray


class FakeQuantize(nn.Module):
    """Rounds an activation to its grid: one learned step, and a zero point that stays where calibration put it.

    Learning the step moves both ends of the range; 0 stays exact. Until `start` it passes numbers on unchanged.

    Args:
        scheme: Asymmetric, unsigned, one step for the tensor.
        name: Where it sits, for reports.
    """

    zero_point: torch.Tensor

    def __init__(self, scheme: Scheme, name: str) -> None:
        super().__init__()
        self.scheme, self.name = scheme, name
        self.watch: Callable[[FloatArray], None] | None = None
        self.step = nn.Parameter(torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32))
        self._zero = 0

    def start(self, grid: Grid) -> None:
        """Set the grid to start from and begin to round."""
        self.watch = None
        with torch.no_grad():
            self.step.copy_(torch.tensor(grid.scale))
            self.zero_point.copy_(torch.tensor(grid.zero_point))
        self._zero = int(grid.zero_point)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._zero = int(self.zero_point)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on its grid, the same shape."""
        if self.watch is not None:
            self.watch(tensor.detach().numpy())
            return tensor
        lowest, highest = self.scheme.lowest - self._zero, self.scheme.highest - self._zero
        sharing = tensor.numel() // max(1, len(tensor))
        return fake_quantize(tensor, _positive(self.step), lowest=lowest, highest=highest, sharing=sharing)

    def grid(self) -> Grid:
        """Return the grid as it is now."""
        return Grid(
            scheme=self.scheme,
            scale=_positive(self.step).detach().numpy().copy(),
            zero_point=self.zero_point.numpy().copy(),
        )


class QuantizedProduct(nn.Module):
    """A convolution or linear layer on rounded weights, and the batch norm that follows it, if any.

    Args:
        product: `nn.Linear`, `nn.Conv1d` or `nn.Conv2d` with the weight to start from.
        scheme: Of the weight: symmetric, narrow, axis 0.
        norm: Batch norm over the output channels, or None.
        name: Of the weight's owner in the original module.
    """

    def __init__(self, product: nn.Linear | nn.Conv1d | nn.Conv2d, scheme: Scheme, norm: Any, name: str) -> None:
        super().__init__()
        self.product, self.scheme, self.norm, self.name = product, scheme, norm, name
        self.freezes_statistics = False
        self.step = nn.Parameter(initial_weight_step(product.weight, highest=scheme.highest))

    def train(self, mode: bool = True) -> "QuantizedProduct":
        """Set the mode; the norm keeps its statistics once they are frozen."""
        super().train(mode)
        if self.norm is not None and self.freezes_statistics:
            self.norm.eval()
        return self

    def freeze_statistics(self) -> None:
        """From now on normalize by the running statistics, as the exported product does."""
        self.freezes_statistics = True
        self.train(self.training)

    def forward(
        self, tensor: torch.Tensor, input_step: torch.Tensor, output_step: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the product, normalized.

        Args:
            tensor: On the grid of its quantizer.
            input_step: That quantizer's `step`.
            output_step: The `step` of the quantizer behind the product (and its ReLU), if the kernel writes integers:
                then it rounds its sum to them in one go, and evaluation does the same.
        """
        if not self.training:
            return self._integer_product(tensor, input_step, output_step)
        weight = self.product.weight
        rounded = fake_quantize(
            weight,
            _positive(self.step),
            lowest=self.scheme.lowest,
            highest=self.scheme.highest,
            sharing=weight[0].numel(),
        )
        outputs = self._multiply(tensor, rounded, self.product.bias)
        return outputs if self.norm is None else self.norm(outputs)

    @torch.no_grad()
    def folded(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return integers (channels, ...), steps (channels,) and bias (channels,) with the norm folded in, float32.

        A channel that the norm multiplies by 0 keeps its step and gets integers 0.
        """
        step = _positive(self.step)
        integers = (self.product.weight / step).round_().clamp_(self.scheme.lowest, self.scheme.highest)
        flat = step.flatten()
        bias = self.product.bias if self.product.bias is not None else torch.zeros_like(flat)
        if self.norm is None:
            return integers, flat, bias.detach().clone()
        deviation = torch.sqrt(self.norm.running_var + self.norm.eps)
        factor = torch.ones_like(flat) if self.norm.weight is None else self.norm.weight
        factor = factor / deviation
        shift = torch.zeros_like(flat) if self.norm.bias is None else self.norm.bias
        scale = torch.where(factor == 0, flat, flat * factor.abs()).clamp(min=SMALLEST_SCALE)
        return integers * factor.sign().reshape(step.shape), scale, shift + (bias - self.norm.running_mean) * factor

    def quantized_weight(self) -> tuple[QuantizedTensor, "FloatArray"]:
        """Return the folded weight with its grid, axis 0, and the folded fp32 bias."""
        integers, step, bias = self.folded()
        scale = step.numpy().copy()
        grid = Grid(scheme=self.scheme, scale=scale, zero_point=torch.zeros(len(scale), dtype=torch.int32).numpy())
        return QuantizedTensor(values=integers.to(torch.int8).numpy(), grid=grid), bias.numpy().copy()

    def plain(self) -> nn.Module:
        """Return the folded product as an ordinary fp32 layer: the rounded weight times its steps."""
        import copy

        weight, bias = self.quantized_weight()
        layer = copy.deepcopy(self.product)
        layer.weight = nn.Parameter(torch.from_numpy(weight.real()))
        layer.bias = nn.Parameter(torch.from_numpy(bias))
        return layer

    def _integer_product(
        self, tensor: torch.Tensor, input_step: torch.Tensor, output_step: torch.Tensor | None
    ) -> torch.Tensor:
        integers, step, bias = self.folded()
        input_step = _positive(input_step)
        scale = input_step * step
        values = (tensor / input_step).round()
        if isinstance(self.product, nn.Linear) and tensor.ndim > 2:
            # Exported as MatMul, which has no bias: an Add of fp32 numbers follows.
            return self._multiply(values, integers, None) * scale + bias
        # A channel without weights has no step of its own: its bias is written as it is.
        steps = torch.where(integers.flatten(1).any(1), (bias / scale).round(), bias / scale)
        accumulated = self._multiply(values, integers, steps)
        shape = (-1,) if isinstance(self.product, nn.Linear) else self.step.shape[:-1]
        if output_step is None:
            return accumulated * scale.reshape(shape)
        output_step = _positive(output_step)
        return (accumulated * (scale / output_step).reshape(shape)).round() * output_step

    def _multiply(self, tensor: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if isinstance(self.product, nn.Linear):
            return nn.functional.linear(tensor, weight, bias)
        outputs: torch.Tensor = self.product._conv_forward(tensor, weight, bias)
        return outputs


def _positive(step: torch.Tensor) -> torch.Tensor:
    """Return a step that an optimizer may have pushed to 0 or below."""
    return step.abs().clamp(min=SMALLEST_SCALE)

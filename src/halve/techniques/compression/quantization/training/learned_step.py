"""Rounding that can be trained: the straight-through estimator, and a gradient for the step itself (LSQ).

Rounding is flat almost everywhere, so its true gradient is 0 and nothing would learn. The straight-through estimator
pretends that rounding was the identity inside the range and a constant outside. The same pretence gives the step a
gradient: with x_hat = s clamp(round(x / s), n, p),

    d x_hat / d x = 1 if n <= x / s <= p, else 0
    d x_hat / d s = round(x / s) - x / s inside, n below, p above

A step sees the sum over all numbers that share it, which would make it learn far faster than a weight, so its
gradient is scaled by g = 1 / sqrt(N p), N of them.

Source: Bengio et al. 2013, arXiv:1308.3432 (straight-through); Esser et al. 2020, arXiv:1902.08153 (learned step).
"""

import math
from typing import Any

import torch  # noqa: TID253 - an autograd function is a class; only `training` imports this module, inside functions.


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: torch.Tensor, step: torch.Tensor, lowest: int, highest: int, gradient_scale: float
    ) -> torch.Tensor:
        ratio = tensor / step
        ctx.save_for_backward(ratio, step)
        ctx.lowest, ctx.highest, ctx.gradient_scale = lowest, highest, gradient_scale
        return ratio.round().clamp_(lowest, highest).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        (gradient,) = gradients
        ratio, step = ctx.saved_tensors
        inside = (ratio >= ctx.lowest) & (ratio <= ctx.highest)
        of_tensor = gradient * inside
        of_step = ratio.round().clamp_(ctx.lowest, ctx.highest).mul_(gradient).sub_(ratio.mul_(of_tensor))
        return of_tensor, of_step.sum_to_size(step.shape).mul_(ctx.gradient_scale), None, None, None


def fake_quantize(tensor: torch.Tensor, step: torch.Tensor, *, lowest: int, highest: int, sharing: int) -> torch.Tensor:
    """Return s clamp(round(x / s), lowest, highest), float32, with the gradients of LSQ.

    The values are those of `affine.fake_quantize`.

    Args:
        tensor: x, any shape.
        step: s > 0, a shape that broadcasts with the tensor's.
        lowest, highest: Ends of the grid less its zero point: lowest <= 0 < highest.
        sharing: N, numbers of one example (or of the weight) that share one step, for the gradient's scale.
    """
    gradient_scale = 1.0 / math.sqrt(max(1, sharing) * highest)
    rounded: torch.Tensor = _LearnedStep.apply(  # type: ignore[no-untyped-call]
        tensor, step, lowest, highest, gradient_scale
    )
    return rounded


def initial_weight_step(weight: torch.Tensor, *, highest: int) -> torch.Tensor:
    """Return the step to start from, per output channel (axis 0): min(2 mean|w| / sqrt(p), max|w| / p).

    The first is LSQ's. With 8 bits it would reach beyond the largest weight, which the second prevents. A
    channel of nothing but 0 gets step 1.

    Args:
        weight: Shape (channels, ...).
        highest: p, the largest integer.
    """
    rows = weight.detach().abs().flatten(1)
    step = torch.minimum(2.0 * rows.mean(1) / math.sqrt(highest), rows.amax(1) / highest)
    return torch.where(step > 0, step, torch.ones_like(step)).reshape(-1, *[1] * (weight.ndim - 1))

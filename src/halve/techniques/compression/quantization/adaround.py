"""AdaRound: learn for every weight whether it goes up or down, so that the layer's output stays where it was.

With s the scale, floor(w / s) the step below w, and h in [0, 1] how far up it goes, the soft weight is

    w~ = s clip(floor(w / s) + h(V), q_min - z, q_max - z),    h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)

V starts where w~ = w. Adam lowers ||W x - W~ x||^2 over minibatches, plus a price for every h that is neither 0 nor 1,

    lambda sum (1 - |2 h - 1|^beta),    beta falls from 20 to 2

which is nearly flat at first, so that h may cross 1/2, and steep at last, so that it settles. The price is asked only
after a warm start of a fifth of the steps. At the end h is rounded: w_hat is one of the two steps around w.

The output error is measured in units of that of round to nearest, so one lambda serves layers of all sizes.

It does not help where 8 bits leave no error to speak of; on few inputs it learns those by heart. GPTQ needs no steps
and is often as good.

Source: Nagel et al. 2020, arXiv:2004.10568, section 3; the constants are its appendix's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError
from halve.techniques.compression.quantization.affine import (
    FloatArray,
    Grid,
    QuantizedTensor,
    fake_quantize,
    quantize,
)

if TYPE_CHECKING:
    import torch

BATCH = 128
"""Inputs per step."""

LEARNING_RATE = 0.05
"""Of Adam on V, whose whole way from 0 to 1 is 4.8 long."""

REGULARIZATION = 3.0
"""Lambda, per weight, against an output error of 1 for round to nearest."""

WARM_START = 0.2
"""Share of the steps before h has to settle."""

FIRST_BETA, LAST_BETA = 20.0, 2.0

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""The sigmoid is stretched beyond [0, 1] so that h reaches its ends."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaRounded(QuantizedTensor):
    """The integers, and how many rows were not learned.

    Args:
        rows_kept_nearest: Rows that are rounded to nearest, because learning did not lower their output error.
    """

    rows_kept_nearest: int


def adaround(
    rows: FloatArray,
    inputs: FloatArray,
    grid: Grid,
    *,
    steps: int = 1000,
    seed: int = 0,
    targets: FloatArray | None = None,
) -> AdaRounded:
    """Return the rows on the grid, every weight one of the two steps around it (or the end of the grid).

    Every row is at least as good on these inputs as round to nearest: where it would not be, round to nearest is
    taken, and `rows_kept_nearest` says for how many. On one thread the same arguments give the same integers.

    Args:
        rows: The weight, float32 (out, in), finite.
        inputs: What it is multiplied with, float32 (n, in), finite.
        grid: Per tensor, row or group of the rows.
        steps: Of Adam, at least 1.
        seed: Of the order of the inputs.
        targets: Outputs to come close to, float32 (n, out); None is inputs @ rows.T. With inputs that earlier layers
            have made inexact, the fp32 model's outputs.

    Raises:
        InvalidParameterError: If a shape does not fit, a value is not finite, or there is no step.
        MissingExtraError: If torch is not installed.
    """
    if targets is None:
        _check(rows, inputs, None, steps=steps)
        targets = inputs @ rows.T
    _check(rows, inputs, targets, steps=steps)
    nearest = fake_quantize(rows, grid)
    nearest_errors = _errors(nearest, inputs, targets)
    learned = _learn(rows, inputs, grid, targets=targets, unit=float(nearest_errors.sum()), steps=steps, seed=seed)
    is_nearest = _errors(learned, inputs, targets) >= nearest_errors
    learned[is_nearest] = nearest[is_nearest]
    # What is on the grid stays there when it is rounded: to integers without a second rule.
    return AdaRounded(values=quantize(learned, grid), grid=grid, rows_kept_nearest=int(is_nearest.sum()))


def _errors(rows: FloatArray, inputs: FloatArray, targets: FloatArray) -> NDArray[np.float64]:
    """Return the mean squared output error of each row, (out,)."""
    errors: NDArray[np.float64] = np.mean(np.square(inputs @ rows.T - targets, dtype=np.float64), axis=0)
    return errors


def _learn(
    rows: FloatArray,
    inputs: FloatArray,
    grid: Grid,
    *,
    targets: FloatArray,
    unit: float,
    steps: int,
    seed: int,
) -> FloatArray:
    """Return the rows rounded as learned, real numbers of the grid."""
    torch = _require_torch()
    scale, zero_point = (
        torch.from_numpy(np.array(np.broadcast_to(part, rows.shape))) for part in grid.expanded(rows.shape)
    )
    low, high = grid.scheme.lowest - zero_point, grid.scheme.highest - zero_point
    weight, seen, wanted = (torch.from_numpy(np.array(array, order="C")) for array in (rows, inputs, targets))
    below = torch.floor(weight / scale)
    share = (weight / scale - below).clamp(0.001, 0.999)
    up = torch.logit((share - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW)).requires_grad_()
    optimizer = torch.optim.Adam([up], lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    unit = max(unit, float(np.finfo(np.float32).tiny))
    for step in range(steps):
        chosen = torch.randint(len(seen), (min(BATCH, len(seen)),), generator=generator)
        going_up = _share(up)
        soft = scale * torch.clamp(below + going_up, low, high)
        loss = (seen[chosen] @ soft.T - wanted[chosen]).square().sum(dim=1).mean() / unit
        beta = _beta(step / steps)
        if beta is not None:
            loss = loss + REGULARIZATION * (1 - (2 * going_up - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        hard: FloatArray = (scale * torch.clamp(below + (_share(up) >= 0.5), low, high)).numpy()
    return hard


def _share(up: "torch.Tensor") -> "torch.Tensor":
    """Return h(V), how far up each weight goes, in [0, 1]."""
    return (up.sigmoid() * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0, 1)


def _beta(progress: float) -> float | None:
    """Return beta at a share of the steps in [0, 1); None during the warm start."""
    if progress < WARM_START:
        return None
    left = (1 - progress) / (1 - WARM_START)
    return LAST_BETA + (FIRST_BETA - LAST_BETA) * left


def _require_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("AdaRound", package="torch", extra="torch") from None
    return torch


def _check(rows: FloatArray, inputs: FloatArray, targets: FloatArray | None, *, steps: int) -> None:
    if rows.ndim != 2 or rows.size == 0:
        raise InvalidParameterError("rows", rule="of shape (out, in)", value=rows.shape)
    if inputs.ndim != 2 or inputs.shape[1] != rows.shape[1] or len(inputs) == 0:
        raise InvalidParameterError("inputs", rule=f"of shape (n, {rows.shape[1]}), n > 0", value=inputs.shape)
    if targets is not None and targets.shape != (len(inputs), len(rows)):
        raise InvalidParameterError("targets", rule=f"of shape {(len(inputs), len(rows))}", value=targets.shape)
    for name, array in (("rows", rows), ("inputs", inputs), ("targets", targets)):
        if array is not None and not np.isfinite(array).all():
            raise InvalidParameterError(name, rule="finite", value="NaN or infinity")
    if steps < 1:
        raise InvalidParameterError("steps", rule="at least 1", value=steps)

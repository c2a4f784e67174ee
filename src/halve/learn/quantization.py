"""Affine quantization worked through: every number here is computed by `quantization.affine`, none is typed in.

One scale s is used throughout: (r_max - r_min) / (q_max - q_min), rounded to nothing coarser than float32. What a
reader gets who rounds s to three digits first is shown once, in a step of its own, because mixing the two is the usual
reason why a hand calculation and a library differ in the last digit.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from halve.errors import InvalidParameterError
from halve.learn.derivation import Derivation, Step
from halve.techniques.compression.quantization.affine import (
    LARGEST,
    FloatArray,
    Grid,
    Scheme,
    dequantize,
    fake_quantize,
    grid_of_range,
    integer_matmul,
    quantize,
    quantize_tensor,
    used_integers,
)

WEIGHTS_OF_THE_EXAMPLE = (0.3, -0.2, 0.1)
LEAST_WIDTH = 1e-30
"""Of the range: below it a step in float32 may not be the range divided by the number of steps."""

SAMPLES = 10_001
"""Numbers per distribution in the comparison of grids; its quantiles, so that no chance is in them."""


def derive(*, low: float, high: float, bits: int, value: float) -> Derivation:
    """Return the derivation for reals in [low, high] on integers of so many bits, following one value.

    Args:
        low, high: The range, low <= high, at most LARGEST in size; at least LEAST_WIDTH wide once it holds 0.
        bits: 2 to 8.
        value: Finite; outside the range it is clipped.

    Raises:
        InvalidParameterError: If a number breaks its rule.
    """
    grid = grid_of_range(low, high, _asymmetric(bits))
    if not abs(value) <= LARGEST:
        raise InvalidParameterError("value", rule="finite, within +-1.7e38", value=value)
    bottom, top = min(low, 0.0), max(high, 0.0)
    if top - bottom < LEAST_WIDTH:
        raise InvalidParameterError("range", rule=f"at least {LEAST_WIDTH:g} wide", value=(low, high))
    return Derivation(
        topic="quantization",
        title=f"Affine quantization of [{low:g}, {high:g}] to {bits} bits, followed for {value:g}",
        given={"low": low, "high": high, "bits": bits, "value": value},
        steps=(
            _integers(low, high, grid),
            _scale(bottom, top, grid),
            _zero_point(bottom, grid),
            _forward(value, grid),
            _back(value, grid),
            _rounded_scale(value, grid),
            _fewer_bits(low, high, bits, value),
            _wasted(low, high, bits),
            _symmetry(low, high, bits),
            _product(low, high, bits, value),
        ),
        sources=("Jacob et al. 2018, arXiv:1712.05877", "Nagel et al. 2021, arXiv:2106.08295"),
    )


def _asymmetric(bits: int) -> Scheme:
    return Scheme(bits=bits, symmetric=False, signed=False, narrow=False)


def _signed(number: float) -> str:
    """Return a number that can stand after an operator."""
    return f"({number:g})" if number < 0 else f"{number:g}"


def _one(value: float) -> FloatArray:
    return np.array([value], np.float32)


def _integers(low: float, high: float, grid: Grid) -> Step:
    scheme = grid.scheme
    bottom, top = min(low, 0.0), max(high, 0.0)
    widened = (
        f"[{low:g}, {high:g}] holds 0 already."
        if (bottom, top) == (low, high)
        else f"[{low:g}, {high:g}] does not hold 0, so it is widened to [{bottom:g}, {top:g}]."
    )
    return Step(
        title="The range and the integers",
        reason=f"0 must be exact, because padding and ReLU make zeros: the range has to hold it. {widened}",
        lines=(
            f"r in [{bottom:g}, {top:g}]",
            f"q in [{scheme.lowest}, {scheme.highest}]    2^{scheme.bits} integers, 2^{scheme.bits} - 1 steps",
        ),
        figures={"r_min": bottom, "r_max": top, "q_min": scheme.lowest, "q_max": scheme.highest},
    )


def _scale(bottom: float, top: float, grid: Grid) -> Step:
    scale, scheme = float(grid.scale), grid.scheme
    return Step(
        title="The scale: how far apart two neighbouring integers are",
        reason="All steps are equal, so it is the range divided by the number of steps.",
        lines=(
            "s = (r_max - r_min) / (q_max - q_min)",
            f"  = ({top:g} - {_signed(bottom)}) / ({scheme.highest} - {scheme.lowest})",
            f"  = {scale:.9g}",
        ),
        figures={"scale": scale},
    )


def _zero_point(bottom: float, grid: Grid) -> Step:
    scale, zero_point, lowest = float(grid.scale), int(grid.zero_point), grid.scheme.lowest
    return Step(
        title="The zero point: the integer that stands for 0",
        reason="It is rounded once, here, so that 0 lies on the grid and not between two of its points.",
        lines=(
            "z = round(q_min - r_min / s)",
            f"  = round({lowest} - {_signed(bottom)} / {scale:.6g})",
            f"  = round({lowest - bottom / scale:.6g})",
            f"  = {zero_point}",
        ),
        figures={"zero_point": zero_point},
    )


def _forward(value: float, grid: Grid) -> Step:
    exact = float(np.float32(value)) / float(grid.scale)
    steps = exact if abs(exact) > LARGEST else float(np.float32(exact))
    integer, zero_point = int(quantize(_one(value), grid)[0]), int(grid.zero_point)
    unclamped = round(steps) + zero_point  # Python, too, rounds half to even.
    clamped = "" if unclamped == integer else f"    (clamped: {value:g} is outside the range)"
    return Step(
        title=f"From {value:g} to its integer",
        reason="Count the steps from 0, round half to even, shift by the zero point, and stay on the grid.",
        lines=(
            "q = clamp(round(r / s) + z, q_min, q_max)",
            f"r / s          = {value:g} / {float(grid.scale):.6g} = {steps:.6g}",
            f"round(r / s)   = {_whole(round(steps))}",
            f"round(r/s) + z = {_whole(round(steps))} + {zero_point} = {_whole(unclamped)}",
            f"q              = {integer}{clamped}",
        ),
        figures={"steps": steps, "integer": integer},
    )


def _whole(number: int) -> str:
    return str(number) if abs(number) < 10**9 else f"{number:.6g}"


def _back(value: float, grid: Grid) -> Step:
    integer, scale, zero_point = quantize(_one(value), grid), float(grid.scale), int(grid.zero_point)
    real = float(dequantize(integer, grid)[0])
    error = abs(real - value)
    bound = "at most s / 2" if error <= scale * 0.5001 else "clipped, so it may be more"
    return Step(
        title="And back",
        reason="The integer stands for one real number; what is lost is the distance to it.",
        lines=(
            "r_hat = s (q - z)",
            f"      = {scale:.6g} * ({int(integer[0])} - {zero_point})",
            f"      = {real:.5g}",
            f"|r - r_hat| = {error:.3g}, s / 2 = {scale / 2:.3g}: {bound}",
        ),
        figures={"real": real, "error": error, "half_step": scale / 2},
    )


def _rounded_scale(value: float, grid: Grid) -> Step:
    rounded = np.asarray(np.float32(f"{float(grid.scale):.3g}"))
    other = Grid(scheme=grid.scheme, scale=rounded, zero_point=grid.zero_point)
    integer = quantize(_one(value), other)
    real = float(dequantize(integer, other)[0])
    ends = np.array([grid.scheme.lowest, grid.scheme.highest], quantize(_one(0), grid).dtype)
    mixed = float(np.abs(dequantize(ends, other) - dequantize(ends, grid)).max())
    return Step(
        title="Which s",
        reason="The steps above use s unrounded, as every library does. If a page prints s with three digits and you "
        "calculate with those, you get another r_hat. Either is a grid; to quantize with one and go back with the "
        "other is an error of its own.",
        lines=(
            f"unrounded s = {float(grid.scale):.9g}: r_hat = {float(fake_quantize(_one(value), grid)[0]):.5g}",
            f"rounded   s = {float(rounded):.9g}: r_hat = {real:.5g}",
            f"mixed up, an end of the grid moves by {mixed:.3g}",
        ),
        figures={"rounded_scale": float(rounded), "real_with_rounded_scale": real, "mixing_error": mixed},
    )


def _fewer_bits(low: float, high: float, bits: int, value: float) -> Step:
    widths = sorted({8, 4, bits}, reverse=True)
    grids = {width: grid_of_range(low, high, _asymmetric(width)) for width in widths}
    finest = float(grids[8].scale)
    lines = [f"{'bits':>4}  {'step s':>12}  {'times INT8':>10}  {'r_hat':>12}"]
    figures: dict[str, float] = {}
    for width, grid in grids.items():
        scale, real = float(grid.scale), float(fake_quantize(_one(value), grid)[0])
        lines.append(f"{width:>4}  {scale:>12.3g}  {scale / finest:>10.4g}  {real:>12.5g}")
        figures |= {f"scale_{width}_bits": scale, f"real_{width}_bits": real}
    return Step(
        title="What a bit costs",
        reason="A bit less about doubles the step, and the error with it. From 8 bits to 4, 255 steps become 15.",
        lines=tuple(lines),
        figures=figures,
    )


def _wasted(low: float, high: float, bits: int) -> Step:
    scheme = Scheme(bits=bits)
    grid = grid_of_range(low, high, scheme)
    first, last = (int(q) for q in quantize(np.array([min(low, 0), max(high, 0)], np.float32), grid))
    reach = float(grid.scale) * scheme.highest
    lines = [f"s = max|r| / q_max = {max(abs(low), abs(high)):g} / {scheme.highest} = {float(grid.scale):.6g}, z = 0"]
    if first > scheme.lowest:
        lines.append(f"no number has q in [{scheme.lowest}, {first - 1}]: [{-reach:.6g}, {min(low, 0):g}) is wasted")
    if last < scheme.highest:
        lines.append(f"no number has q in [{last + 1}, {scheme.highest}]: ({max(high, 0):g}, {reach:.6g}] is wasted")
    if (first, last) == (scheme.lowest, scheme.highest):
        lines.append("every integer is used")
    total = scheme.highest - scheme.lowest + 1
    wasted = total - (last - first + 1)
    lines.append(f"{wasted} of {total} integers are wasted, {wasted / total:.0%}")
    return Step(
        title="The same range on a symmetric grid",
        reason="It has no zero point and reaches as far to both sides, whether or not there are numbers on both.",
        lines=tuple(lines),
        figures={"symmetric_scale": float(grid.scale), "wasted_integers": wasted, "integers": total},
    )


def _distributions(low: float, high: float) -> Iterator[tuple[str, FloatArray]]:
    """Yield names and quantiles of what tensors look like."""
    shares: NDArray[np.float64] = (np.arange(SAMPLES) + 0.5) / SAMPLES
    normal = ndtri(shares)
    yield "even in your range", (low + shares * (high - low)).astype(np.float32)
    yield "ReLU of normal", np.maximum(normal, 0).astype(np.float32)
    yield "tanh of normal", np.tanh(2 * normal).astype(np.float32)
    yield "weights, normal", normal.astype(np.float32)


def _symmetry(low: float, high: float, bits: int) -> Step:
    symmetric, asymmetric = Scheme(bits=bits), _asymmetric(bits)
    total = symmetric.highest - symmetric.lowest + 1
    lines = [f"{'numbers':<20}  {'integers wasted':>16}  {'error, symmetric / asymmetric':>30}"]
    figures: dict[str, float] = {}
    for name, tensor in _distributions(low, high):
        bottom, top = min(float(tensor[0]), 0.0), max(float(tensor[-1]), 0.0)
        wasted = total - used_integers(bottom, top, grid_of_range(bottom, top, symmetric))
        left, right = (_root_mean_square_error(tensor, scheme) for scheme in (symmetric, asymmetric))
        key = name.replace(",", "").replace(" ", "_").lower()
        figures[f"{key}_wasted_share"] = wasted / total
        ratio = "-"
        if left > 0 and right > 0:
            ratio, figures[f"{key}_error_ratio"] = f"{left / right:.2f}", left / right
        lines.append(f"{name:<20}  {wasted / total:>16.0%}  {ratio:>30}")
    return Step(
        title="When that matters",
        reason="Root mean squared error of both grids, measured. After a ReLU half of the integers have no number, so "
        "activations get asymmetric grids. A tanh, and weights around 0, fill both sides: symmetric is fine.",
        lines=tuple(lines),
        figures=figures,
    )


def _root_mean_square_error(tensor: FloatArray, scheme: Scheme) -> float:
    difference = quantize_tensor(tensor, scheme).real().astype(np.float64) - tensor
    return float(np.sqrt(np.mean(np.square(difference))))


def _product(low: float, high: float, bits: int, value: float) -> Step:
    inputs = np.array([[low, min(max(value, low), high), high]], np.float32)
    weights = np.array(WEIGHTS_OF_THE_EXAMPLE, np.float32)[:, None]
    left, right = quantize_tensor(inputs, _asymmetric(bits)), quantize_tensor(weights, Scheme(bits=bits))
    products = int((left.values.astype(np.int64) @ right.values.astype(np.int64))[0, 0])
    correction = int(left.grid.zero_point) * int(right.values.sum(dtype=np.int64))
    real = float(integer_matmul(left, right)[0, 0])
    exact = float((inputs.astype(np.float64) @ weights.astype(np.float64))[0, 0])
    factor = float(left.grid.scale) * float(right.grid.scale)
    return Step(
        title="Why weights are symmetric",
        reason="With z_w = 0 a product of integers needs one correction, and it depends on the weights alone: it is "
        "computed once. A zero point of the weights would add z_w * sum(q_x), anew for every input.",
        lines=(
            "y = s_x s_w (sum q_x q_w - z_x sum q_w)",
            f"x = ({', '.join(f'{x:.5g}' for x in inputs[0])}): q_x = {left.values[0].tolist()}, "
            f"z_x = {int(left.grid.zero_point)}",
            f"w = ({', '.join(f'{w:g}' for w in WEIGHTS_OF_THE_EXAMPLE)}): q_w = {right.values[:, 0].tolist()}",
            f"y = {factor:.5g} * ({products} - {_signed(correction)}) = {real:.5g}",
            f"in real numbers: {exact:.5g}",
        ),
        figures={"products": products, "correction": correction, "integer_product": real, "real_product": exact},
    )

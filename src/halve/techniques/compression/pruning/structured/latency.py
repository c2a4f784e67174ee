"""A measured table: what each layer costs on this host at which widths. No FLOPs are counted anywhere.

FLOPs fall smoothly with the width; seconds fall in steps, because kernels work on 8 or 16 channels at once, and a
width between two steps can even be slower than the wider one. So every convolution and linear layer is built alone,
as an ONNX model of one product with its real input shape, and timed in ONNX Runtime over a small grid of widths.
Between grid points seconds are taken to be bilinear in both widths. Layers of equal shape are measured once.

What is not in the table: everything that is no product (normalization, attention scores, copies). The sum over the
layers is therefore not the model's latency; `prune` closes the gap by measuring whole models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.compression.pruning.structured.groups import Group, Inputs, answer, first_rows, opened
from halve.techniques.compression.pruning.structured.runtime import Timer, interleaved_seconds, open_session

if TYPE_CHECKING:
    from torch import nn

GRID_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Where along a layer's width it is measured."""

STEPS = (4, 8, 16)
"""Channels that a kernel may work on at once; the largest that this host's timings show is used."""

FEWEST_SHARE = 0.125
"""No group becomes narrower than this share: what is left could not be recovered."""

MOST_CANDIDATES = 24
"""Widths offered per group."""


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One product as the runtime sees it.

    Args:
        kind: `conv`, `depthwise` or `linear`.
        rows: Of a linear layer: how many vectors. Of a convolution: the batch.
        space: Input height, width, ...; empty for a linear layer.
        kernel, stride, padding, dilation: Of a convolution; empty for a linear layer.
        bias: Whether it has one.
        inputs, outputs: Widths of the whole layer.
    """

    kind: str
    rows: int
    space: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    bias: bool
    inputs: int
    outputs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Seconds of one layer over widths.

    Args:
        inputs, outputs: Widths, ascending, at least one each.
        seconds: float64 (inputs, outputs), > 0.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    seconds: NDArray[np.float64]

    def at(self, inputs: int, outputs: int) -> float:
        """Return seconds at these widths, bilinear between grid points, proportional to the width below the lowest."""
        across = [_between(self.outputs, row, outputs) for row in self.seconds]
        return _between(self.inputs, across, inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class LatencyTable:
    """Seconds of every layer of a module.

    Args:
        grids: By layer.
        whole: Input and output width of each layer at full size.
        sides: For each layer the group and the positions per channel of its inputs and of its outputs; None where no
            group touches them.
        candidates: For each group the widths it may have, ascending; the last is its own.
        step: Channels that the kernels work on at once here.
    """

    grids: Mapping[str, Grid]
    whole: Mapping[str, tuple[int, int]]
    sides: Mapping[str, tuple[tuple[str, int] | None, tuple[str, int] | None]]
    candidates: Mapping[str, tuple[int, ...]]
    step: int

    def layer_seconds(self, layer: str, widths: Mapping[str, int]) -> float:
        """Return the seconds of one layer if the groups have these widths; a missing group is whole."""
        at = [
            full if side is None or side[0] not in widths else widths[side[0]] * side[1]
            for side, full in zip(self.sides[layer], self.whole[layer], strict=True)
        ]
        return self.grids[layer].at(*at)

    def seconds(self, widths: Mapping[str, int]) -> float:
        """Return the sum over all layers if the groups have these widths."""
        return sum(self.layer_seconds(layer, widths) for layer in self.grids)


def measure_latency(
    module: "nn.Module",
    groups: Sequence[Group],
    inputs: Inputs,
    *,
    batch_size: int = 1,
    timer: Timer | None = None,
) -> LatencyTable:
    """Measure every convolution and linear layer over a grid of widths in ONNX Runtime, one thread.

    Args:
        module: The module that the groups are of.
        groups: From `prunable_groups`.
        inputs: Real inputs, at least one row; shapes are taken from a run of the module.
        batch_size: Rows of a request, at least 1.
        timer: Measures seconds; `interleaved_seconds` by default.

    Raises:
        InvalidParameterError: If the batch size or the inputs are empty.
        ModelError: If the module cannot be run, or has no such layer.
        MissingExtraError: If torch, onnx or onnxruntime is not installed.
    """
    if batch_size < 1:
        raise InvalidParameterError("batch_size", rule="at least 1", value=batch_size)
    measure = timer or interleaved_seconds
    shapes = layer_shapes(module, first_rows(inputs, batch_size))
    if not shapes:
        raise ModelError(f"{type(module).__name__} has no convolution or linear layer to measure.")
    sides = {layer: _sides(layer, groups) for layer in shapes}
    step = fast_step(shapes.values(), measure)
    candidates = {group.name: candidate_widths(group.width, unit=group.unit, step=step) for group in groups}
    grids: dict[str, Grid] = {}
    measured: dict[tuple[object, ...], Grid] = {}
    for layer, shape in shapes.items():
        axes = [
            (full,) if side is None else tuple(width * side[1] for width in _grid_points(candidates[side[0]]))
            for side, full in zip(sides[layer], (shape.inputs, shape.outputs), strict=True)
        ]
        key = (shape, *axes)
        if key not in measured:
            measured[key] = _measured(shape, axes[0], axes[1], measure)
        grids[layer] = measured[key]
    whole = {layer: (shape.inputs, shape.outputs) for layer, shape in shapes.items()}
    return LatencyTable(grids=grids, whole=whole, sides=sides, candidates=candidates, step=step)


def candidate_widths(width: int, *, unit: int, step: int) -> tuple[int, ...]:
    """Return the widths a group may have: whole units, multiples of the step, at least an eighth; and its own.

    Args:
        width: The group's own, >= 1.
        unit: Channels that go at once, >= 1.
        step: Channels that kernels work on at once, >= 1.
    """
    grain = int(np.lcm(unit, step))
    if grain >= width:
        grain = unit  # Too narrow for the step: whole units are all there is.
    lowest = max(grain, int(np.ceil(width * FEWEST_SHARE / grain)) * grain)
    widths = list(range(lowest, width, grain))
    if len(widths) >= MOST_CANDIDATES:
        widths = [widths[index] for index in np.linspace(0, len(widths) - 1, MOST_CANDIDATES - 1).round().astype(int)]
    return (*widths, width)


def fast_step(shapes: "Sequence[LayerShape] | Any", timer: Timer) -> int:
    """Return how many channels the kernels work on at once, by timing widths between 16 and 32.

    A step of 4 shows as 28 channels being faster than 32 by at least half of what is proportional, a step of 8 as 24
    being so; else it is 16. The layer with the most multiplications is timed, with 64 inputs.
    """
    import dataclasses

    wide = [shape for shape in shapes if shape.kind != "depthwise"]
    if not wide:
        return STEPS[-1]
    heaviest = max(wide, key=_multiplications)
    actions = {}
    for outputs in (24, 28, 32):
        shape = dataclasses.replace(heaviest, inputs=64, outputs=outputs)
        actions[f"{shape.kind} 64 to {outputs}"] = _action(shape)
    found = timer(actions)
    narrow, middle, full = (float(np.median(found[name])) for name in actions)
    for step, seconds in ((4, middle), (8, narrow)):
        if seconds < full * (1 - 0.5 * step / 32):
            return step
    return STEPS[-1]


def layer_shapes(module: "nn.Module", batch: Inputs) -> dict[str, LayerShape]:
    """Return the shape of every convolution and linear layer, as one run of the opened module shows them."""
    from torch import nn

    model = opened(module).eval()
    shapes: dict[str, LayerShape] = {}

    def hook(name: str) -> Any:
        def watch(layer: Any, arguments: Any, _: Any) -> None:
            shapes[name] = _shape(layer, arguments[0])

        return watch

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for name, layer in model.named_modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(hook(name))
    answer(model, batch)
    return shapes


def _shape(layer: Any, tensor: Any) -> LayerShape:
    from torch import nn

    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        rows = tensor.numel() // layer.in_features
        return LayerShape(kind="linear", rows=rows, bias=bias, inputs=layer.in_features, outputs=layer.out_features)
    padding = layer.padding
    if isinstance(padding, str):
        padding = tuple(0 if padding == "valid" else (k - 1) * d // 2 for k, d in zip(
            layer.kernel_size, layer.dilation, strict=True))  # fmt: skip
    return LayerShape(
        kind="conv" if layer.groups == 1 else "depthwise",
        rows=len(tensor),
        space=tuple(tensor.shape[2:]),
        kernel=layer.kernel_size,
        stride=layer.stride,
        padding=tuple(padding),
        dilation=layer.dilation,
        bias=True,  # Batch norm folds into one.
        inputs=layer.in_channels,
        outputs=layer.out_channels,
    )


def _sides(layer: str, groups: Sequence[Group]) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    found: dict[str, tuple[str, int]] = {}
    for group in groups:
        for member in group.members:
            if member.layer == layer:
                found[member.axis] = (group.name, len(member.positions[0]) // group.unit)
    return found.get("in"), found.get("out")


def _grid_points(candidates: Sequence[int]) -> list[int]:
    """Return a few of the candidates, the narrowest and the widest among them."""
    width = candidates[-1]
    return sorted({candidates[0]} | {min(candidates, key=lambda c: abs(c - share * width)) for share in GRID_SHARES})


def _measured(shape: LayerShape, inputs: Sequence[int], outputs: Sequence[int], timer: Timer) -> Grid:
    import dataclasses

    if shape.kind == "depthwise":  # One width, whichever side names it.
        widths = inputs if len(inputs) > 1 else outputs
        inputs = outputs = widths
        pairs = [(width, width) for width in widths]
    else:
        pairs = [(a, b) for a in inputs for b in outputs]
    actions = {
        f"{shape.kind} {a} to {b} on {'x'.join(map(str, (shape.rows, *shape.space)))}": _action(
            dataclasses.replace(shape, inputs=a, outputs=b)
        )
        for a, b in pairs
    }
    found = timer(actions)
    medians = [float(np.median(found[name])) for name in actions]
    if shape.kind == "depthwise":
        seconds = np.minimum.outer(np.array(medians), np.array(medians))
    else:
        seconds = np.array(medians).reshape(len(inputs), len(outputs))
    return Grid(inputs=tuple(inputs), outputs=tuple(outputs), seconds=seconds)


def _action(shape: LayerShape) -> Any:
    """Return one run of the layer alone, as a function without arguments."""
    from functools import partial

    content, feed = single_layer(shape)
    return partial(open_session(content).run, None, feed)


def single_layer(shape: LayerShape) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """Return the layer as an ONNX model of one product (and a ReLU behind a convolution), and an input for it."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtraError("pruning by measured latency", package="onnx", extra="onnx") from None
    rng = np.random.default_rng(0)
    if shape.kind == "linear":
        feed = rng.standard_normal((shape.rows, shape.inputs)).astype(np.float32)
        weight = rng.standard_normal((shape.inputs, shape.outputs)).astype(np.float32)
        nodes = [helper.make_node("Gemm" if shape.bias else "MatMul", ["x", "w", *["b"] * shape.bias], ["y"])]
    else:
        groups = shape.inputs if shape.kind == "depthwise" else 1
        feed = rng.standard_normal((shape.rows, shape.inputs, *shape.space)).astype(np.float32)
        weight = rng.standard_normal((shape.outputs, shape.inputs // groups, *shape.kernel)).astype(np.float32)
        nodes = [
            helper.make_node(
                "Conv", ["x", "w", "b"], ["c"], group=groups, kernel_shape=shape.kernel, strides=shape.stride,
                pads=shape.padding * 2, dilations=shape.dilation,
            ),
            helper.make_node("Relu", ["c"], ["y"]),
        ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, feed.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight, "w"),
            *[numpy_helper.from_array(np.zeros(shape.outputs, np.float32), "b")] * shape.bias,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
    return content, {"x": feed}


def _multiplications(shape: LayerShape) -> float:
    area = np.prod(shape.space, dtype=float) * np.prod(shape.kernel, dtype=float) / np.prod(shape.stride, dtype=float)
    return float(shape.rows * shape.inputs * shape.outputs * area)


def _between(points: Sequence[int], values: "Sequence[float] | NDArray[np.float64]", at: int) -> float:
    if at < points[0]:
        return float(values[0]) * at / points[0]
    return float(np.interp(at, points, values))


def narrower(candidates: Sequence[int], width: int) -> Iterator[int]:
    """Return the candidates below a width, widest first."""
    return (candidate for candidate in reversed(candidates) if candidate < width)

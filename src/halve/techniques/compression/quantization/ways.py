"""The ways to carry out an order: rounded after training, while it runs, in memory only, or trained for it.

Each returns the artifact with its own table: what every product of the model became, and why.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from halve.errors import ModelError
from halve.techniques.compression.quantization.agreement import Agreement, agreement
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.crossover import LayerTiming, Timer, time_models
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.hardware import Probe
from halve.techniques.compression.quantization.layer_error import layer_errors
from halve.techniques.compression.quantization.manifest import FP32_BITS, LayerRecord
from halve.techniques.compression.quantization.order import Data, Order, Step
from halve.techniques.compression.quantization.post_training import left_in_fp32, quantize_dynamic
from halve.techniques.compression.quantization.quantize import (
    Quantized,
    quantize_model,
    refuse_if_useless,
    split_batches,
)
from halve.techniques.compression.quantization.recipes import StaticRecipe
from halve.techniques.compression.quantization.runtime import run_logits
from halve.techniques.compression.quantization.weight_only import quantize_weight_only

if TYPE_CHECKING:
    from torch import nn

GROUP_SIZE = 32
"""Weights per scale where only weights are in integers."""

ACCURACY_LEVELS = (0, 4)
"""Of MatMulNBits: products in fp32, or of activations that the kernel rounds to 8 bits."""

NOTABLY_WORSE = 1.1
"""Times the error that a faster way may cost."""

QAT_BATCH, QAT_FIRST_ROWS = 128, 512
"""Rows per update, and rows that set the first activation grids."""

PARITY_ROWS = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What one way of quantizing gives the manifest."""

    content: bytes
    recipe: str
    layers: tuple[LayerRecord, ...]
    agreement: Agreement
    seconds: float
    fp32_seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """An order with everything that carrying it out needs."""

    order: Order
    bits: int
    module: object
    fp32: Path
    graph: Graph
    data: Data
    probe: Probe
    step: Step
    timer: Timer | None


def static(work: Work) -> Made:
    """Round weights and activations after training, by the best recipe that was tried."""
    order = work.order
    base = StaticRecipe(weight_bits=work.bits, activation_bits=order.activation_bits)
    with work.step("quantizing and comparing"):
        made = quantize_model(
            work.fp32,
            calibration=work.data.batches,
            base=base,
            tries=order.method == "auto",
            error_budget=order.error_budget,
            accept_slower=order.accept_slower,
            seed=order.seed,
            timer=work.timer,
        )
    return Made(
        content=made.content,
        recipe=made.chosen.name,
        layers=_static_records(work, made),
        agreement=made.chosen.agreement,
        seconds=made.chosen.seconds,
        fp32_seconds=made.fp32_seconds,
    )


def _static_records(work: Work, made: Quantized) -> tuple[LayerRecord, ...]:
    errors = layer_errors(made.plan, split_batches(work.data.batches)[1])
    records = {}
    for layer in made.plan.graph.layers:
        timing = made.timings[layer.name]
        weight = made.plan.weights.get(layer.name)
        reason = made.reasons.get(layer.name)
        if weight is None or reason is not None:
            why = reason or "no integer kernel: its input or output has no grid"
            records[layer.name] = fp32_record(layer.name, layer.operator, why, timing)
            continue
        grid = made.plan.activations[layer.input]
        records[layer.name] = LayerRecord(
            name=layer.name,
            operator=layer.operator,
            bits=weight.grid.scheme.bits,
            activation_bits=grid.scheme.bits,
            scheme="weight symmetric, per channel; input asymmetric",
            error=errors[layer.name],
            fp32_seconds=timing.fp32_seconds,
            int8_seconds=timing.int8_seconds,
            decision="integers",
            reason=_speed(timing),
        )
    return _ordered(work, records)


def _speed(timing: LayerTiming) -> str:
    ratio = timing.fp32_seconds / timing.int8_seconds
    if timing.int8_is_faster:
        return f"{ratio:.1f} times as fast here"
    return "slower alone, kept for its size" if timing.int8_is_slower else "as fast here, and smaller"


def fp32_record(name: str, operator: str, reason: str, timing: LayerTiming | None = None) -> LayerRecord:
    """Return the line of a layer that stays fp32."""
    return LayerRecord(
        name=name,
        operator=operator,
        bits=FP32_BITS,
        activation_bits=None,
        scheme="fp32",
        error=None,
        fp32_seconds=None if timing is None else timing.fp32_seconds,
        int8_seconds=None if timing is None else timing.int8_seconds,
        decision="fp32",
        reason=reason,
    )


def _ordered(work: Work, records: Mapping[str, LayerRecord]) -> tuple[LayerRecord, ...]:
    """Return the records in the order of the graph, with those of products that nobody can put into integers."""
    known = {layer.name for layer in work.graph.layers}
    left = set(left_in_fp32(work.graph, known))
    lines = []
    for node in work.graph.proto.graph.node:
        if node.name in records:
            lines.append(records[node.name])
        elif node.name in left:
            lines.append(fp32_record(node.name, node.op_type, "both factors are computed, or there is no kernel"))
    return tuple(lines)


def dynamic(work: Work) -> Made:
    """Round weights now and activations as the model runs."""
    with tempfile.TemporaryDirectory(prefix="halve-") as folder, work.step("quantizing"):
        target = Path(folder) / "dynamic.onnx"
        quantize_dynamic(work.fp32, target, weight_bits=work.bits)
        content = target.read_bytes()
    records = {
        layer.name: fp32_record(layer.name, layer.operator, "dynamic INT8 convolutions are slower than fp32")
        if layer.operator == "Conv"
        else _record(layer.name, layer.operator, bits=work.bits, activation_bits=8, scheme="range taken as it runs")
        for layer in work.graph.layers
    }
    return _compared(work, content, recipe=f"dynamic INT8, {work.bits}-bit weights", layers=_ordered(work, records))


def weight_only(work: Work) -> Made:
    """Keep weights in integers and multiply in fp32: for memory, not for multiplications."""
    fit, check = split_batches(work.data.batches)
    with work.step("rounding weights"):
        made = {
            level: quantize_weight_only(
                work.graph,
                bits=work.order.weight_bits,
                group_size=GROUP_SIZE,
                method="gptq",
                batches=fit,
                accuracy_level=level,
            )
            for level in ACCURACY_LEVELS
        }
    level = _better_level({level: artifact.content for level, artifact in made.items()}, work, check)
    records = {
        layer.name: _record(
            layer.name,
            layer.operator,
            bits=work.order.weight_bits,
            activation_bits=None,
            scheme=f"groups of {GROUP_SIZE}",
            decision="weight-only",
        )
        if layer.name in made[level].layers
        else fp32_record(layer.name, layer.operator, "no kernel for weights in groups")
        for layer in work.graph.layers
    }
    rounding = "activations rounded to 8 bits by the kernel" if level else "products in fp32"
    recipe = f"{work.order.weight_bits}-bit weights in groups of {GROUP_SIZE}, GPTQ, {rounding}"
    return _compared(work, made[level].content, recipe=recipe, layers=_ordered(work, records), made_for_size=True)


def _better_level(contents: Mapping[int, bytes], work: Work, check: Batches) -> int:
    """Return the faster accuracy level, unless its error is notably larger."""
    expected = run_logits(work.fp32, check)
    exact, quick = (agreement(expected, run_logits(contents[level], check)) for level in ACCURACY_LEVELS)
    seconds = time_models({str(level): content for level, content in contents.items()}, check[0], timer=work.timer)
    is_close = quick.relative_rmse <= NOTABLY_WORSE * exact.relative_rmse
    return 4 if is_close and seconds["4"] < seconds["0"] else 0


def trained(work: Work) -> Made:
    """Train with quantization in the loop, and check that the file computes what was trained."""
    from halve.techniques.compression.quantization import training

    order, module = work.order, cast("nn.Module", work.module)
    inputs = _joined(work.data.batches)
    labels, answers = work.data.labels, work.data.answers
    if labels is None:
        told = run_logits(work.fp32, work.data.batches) if answers is None else answers
        labels = told.argmax(axis=1).astype(np.int64)
    rows = len(labels)
    recipe = training.Recipe(
        epochs=order.qat_epochs,
        learning_rate=order.learning_rate,
        batch_size=min(QAT_BATCH, rows),
        distillation=1.0 if work.data.labels is None else training.Recipe.distillation,
        seed=order.seed,
    )
    first = {name: array[:QAT_FIRST_ROWS] for name, array in inputs.items()}
    prepared = training.prepare(module, first, weight_bits=work.bits, activation_bits=order.activation_bits)
    with work.step(f"training {order.qat_epochs} epochs"):
        training.train(prepared, inputs, labels, recipe=recipe, teacher=module if answers is None else answers)
    with tempfile.TemporaryDirectory(prefix="halve-") as folder, work.step("converting and checking"):
        converted = training.convert(prepared, first, Path(folder) / "trained.onnx")
        checked = training.parity(prepared, converted, {name: array[:PARITY_ROWS] for name, array in inputs.items()})
        content = converted.path.read_bytes()
    if checked.largest_steps > 1:
        raise ModelError(
            f"the exported file must be at most 1 step from the trained network. Got {checked.largest_steps}."
        )
    records = {
        layer.node: _record(
            layer.node,
            layer.operator,
            bits=layer.weight_bits,
            activation_bits=layer.input_bits,
            scheme="learned steps, per channel",
        )
        for layer in converted.layers
    }
    lines = (*records.values(), *(fp32_record(name, "", "not matched") for name in converted.left_in_fp32))
    recipe_text = f"W{work.bits}A{order.activation_bits}, {order.qat_epochs} epochs with quantization in the loop"
    return _compared(work, content, recipe=recipe_text, layers=lines, made_for_size=work.bits < 7)


def _joined(batches: Batches) -> dict[str, Any]:
    widths = {name: {array.shape[1:] for batch in batches for array in [batch[name]]} for name in batches[0]}
    uneven = [name for name, shapes in widths.items() if len(shapes) > 1]
    if uneven:
        return {name: _padded([batch[name] for batch in batches]) for name in batches[0]}
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _padded(arrays: Iterable[Any]) -> Any:
    """Join arrays of (rows, tokens) with 0 behind the shorter ones: padding, and masked."""
    parts = list(arrays)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts])


def _record(
    name: str, operator: str, *, bits: int, activation_bits: int | None, scheme: str, decision: str = "integers"
) -> LayerRecord:
    return LayerRecord(
        name=name,
        operator=operator,
        bits=bits,
        activation_bits=activation_bits,
        scheme=scheme,
        error=None,
        fp32_seconds=None,
        int8_seconds=None,
        decision=decision,
        reason="as ordered",
    )


def _compared(
    work: Work, content: bytes, *, recipe: str, layers: tuple[LayerRecord, ...], made_for_size: bool = False
) -> Made:
    """Compare a finished artifact with fp32 on the check inputs, and refuse one that is wrong or useless here."""
    _, check = split_batches(work.data.batches)
    seconds = time_models({"fp32": work.fp32.read_bytes(), "integers": content}, check[0], timer=work.timer)
    found = agreement(run_logits(work.fp32, check), run_logits(content, check))
    refuse_if_useless(
        work.fp32.name,
        found,
        seconds=seconds["integers"],
        fp32_seconds=seconds["fp32"],
        accept_slower=work.order.accept_slower or made_for_size,
    )
    return Made(
        content=content,
        recipe=recipe,
        layers=layers,
        agreement=found,
        seconds=seconds["integers"],
        fp32_seconds=seconds["fp32"],
    )


WAYS: dict[str, Callable[[Work], Made]] = {
    "static": static,
    "dynamic": dynamic,
    "weight-only": weight_only,
    "trained": trained,
}

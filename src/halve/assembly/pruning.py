"""`halve.prune`: one model made faster by fewer channels, without the ladder."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from halve import chains
from halve.assembly import entries
from halve.assembly.distilling import folder_in, lesson_of, new_target, reading, wished
from halve.assembly.lessons import Given, Promise, in_parts, read_training
from halve.assembly.made import MadeModel, finish
from halve.assembly.staging import stage
from halve.core import Augment, Progress
from halve.core.progress import Silent
from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Recipe

if TYPE_CHECKING:
    from torch import nn

Importance = Literal["taylor", "magnitude", "activation"]


def prune(  # noqa: PLR0913 - a verb for users: every choice is a keyword of its own
    model: "str | nn.Module",
    *,
    data: Given,
    out: str | Path,
    target_latency_ratio: float = 0.5,
    importance: Importance = "taylor",
    epochs: int | None = None,
    learning_rate: float | None = None,
    integers: bool = False,
    payload: str = "payload",
    label: str | None = None,
    labels: Sequence[str] = (),
    tokenizer: str | Path | None = None,
    max_tokens: int = 64,
    augment: str | Augment | None = None,
    hold_out: float = 0.2,
    quality_drop_at_most: float = 0.01,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> MadeModel:
    """Cut a trained network down to a share of its measured seconds, and let it learn from what it was.

    Widths follow from seconds measured on this host, not from operations. Killed at any time, the same command goes
    on where it was, with the widths that it had chosen.

    Args:
        model: `module:function` returning a trained torch module, or the module itself in evaluation mode.
        data: Inputs like the requests to come; labels are welcome and not needed.
        out: Folder to write; it must not exist yet.
        target_latency_ratio: Seconds of one request over the model's own, both in onnxruntime, in (0, 1).
        importance: What says which channels go: `taylor` (their effect on the answers), `magnitude` or `activation`.
        epochs, learning_rate: Of the recovery.
        integers: Put the result into integers as well.
        payload, label, labels, tokenizer, max_tokens, augment: As for `distill`.
        hold_out, quality_drop_at_most, confidence, seed, progress: As for `distill`.

    Raises:
        UserError: If model, data or numbers cannot be used; one sentence each.
    """
    target, promise = new_target(out), Promise(drop_at_most=quality_drop_at_most, confidence=confidence)
    if not 0 < target_latency_ratio < 1:
        raise InvalidParameterError("target_latency_ratio", rule="in (0, 1)", value=target_latency_ratio)
    wishes = {"epochs": epochs, "learning_rate": learning_rate}
    wished(Recipe(epochs=1, learning_rate=1e-3), wishes)  # refuses numbers before the model is asked
    with entries.importable(Path.cwd()), tempfile.TemporaryDirectory(prefix="halve-") as scratch:
        training = read_training(data, payload=payload, label=label, labels=labels, augment=augment)
        reads = reading(training, tokenizer=tokenizer, max_tokens=max_tokens)
        source = stage(model, folder_in(scratch, "model"), **reads)
        parts = in_parts(training, share=hold_out)
        lesson = lesson_of(source, parts, target, promise=promise, seed=seed, progress=progress or Silent())
        recipe = wished(chains.recovery_recipe(lesson), wishes)
        fp32 = folder_in(scratch, "fp32")
        chains.write_pruned(
            fp32,
            lesson=lesson,
            target_latency_ratio=target_latency_ratio,
            recipe=recipe,
            name=f"pruned-{target_latency_ratio:g}-{importance}",
            importance=importance,
        )
        with source.opened() as answerer:
            calibration = answerer.inputs(parts.learn.payloads[: chains.CALIBRATION_ROWS]) if integers else None
        return finish(
            target,
            fp32=fp32,
            calibration=calibration,
            reads=source,
            teacher=source,
            lesson=replace(lesson, training=parts.measure),
            promise=promise,
        )

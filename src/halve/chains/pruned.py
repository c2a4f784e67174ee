"""A trained network is cut down to a measured latency, and learns from its parent what it lost."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from halve.chains.files import WEIGHTS_NAME, first_rows, seconds_as_served, write_module
from halve.chains.lesson import Inputs, Lesson, all_cores, module_of
from halve.chains.record import ChainStep
from halve.chains.students import distillation_step, started, taught
from halve.core.documents import replace_file
from halve.techniques.compression import pruning

if TYPE_CHECKING:
    from torch import nn

    from halve.techniques.compression.distillation import Recipe
    from halve.techniques.compression.pruning import Importance, RebuildSpecification

SPECIFICATION_NAME = "pruned.json"
IMPORTANCE_ROWS = 256
"""Rows that importance and latency are measured on."""


def write_pruned(
    folder: Path,
    *,
    lesson: Lesson,
    target_latency_ratio: float,
    recipe: "Recipe",
    name: str,
    importance: "Importance" = "taylor",
) -> None:
    """Prune the teacher itself, let it learn from what it was, and write the smaller model.

    Files: `model.onnx`, `weights.safetensors`, `pruned.json` (how to rebuild the module from its parent's) and
    `recipe.json`.

    Args:
        folder: Exists; other files in it stay.
        lesson: Its teacher is the model to prune, a torch module.
        target_latency_ratio: Seconds of one call over the parent's, both in onnxruntime, in (0, 1).
        recipe: Of the recovery.
        name: Of the checkpoints: a build that was killed keeps its widths and goes on.
        importance: `taylor`, `magnitude` or `activation`.

    Raises:
        ModelError: If the model is no torch module, or cannot be pruned that far.
        MissingExtraError: If a library is not installed.
    """
    cache = lesson.answers()
    with lesson.opened() as teacher:
        parent = module_of(teacher, owner=lesson.teacher.name)
        inputs = teacher.inputs(lesson.training.payloads)
    module, specification, figures = _cut(
        parent, inputs, lesson=lesson, ratio=target_latency_ratio, importance=importance, name=name
    )
    done = taught(module, inputs, lesson=lesson, cache=cache, recipe=recipe, name=name)
    cut = ChainStep(
        technique="pruning",
        parameters={"target_latency_ratio": target_latency_ratio, "importance": importance},
        figures=figures,
    )
    record = started(lesson).with_step(cut).with_step(distillation_step(lesson, cache, recipe, done))
    (folder / SPECIFICATION_NAME).write_text(specification.to_json())
    write_module(folder, module, inputs, record=record)


def _cut(
    parent: "nn.Module", inputs: Inputs, *, lesson: Lesson, ratio: float, importance: "Importance", name: str
) -> "tuple[nn.Module, RebuildSpecification, dict[str, float]]":
    """Return the pruned module with its weights fitted to its parent's, before any training.

    After a kill -9 it is the same one: its widths follow from timings, which never repeat.
    """
    from safetensors.torch import load_model, save_model

    kept = lesson.workspace(f"pruning-{name}")
    paths = {part: kept / part for part in (SPECIFICATION_NAME, WEIGHTS_NAME, "figures.json")}
    if all(path.is_file() for path in paths.values()):
        specification = pruning.RebuildSpecification.from_json(paths[SPECIFICATION_NAME].read_text())
        module = pruning.rebuild(parent, specification)
        load_model(module, paths[WEIGHTS_NAME])
        return module, specification, json.loads(paths["figures.json"].read_text())
    sample = first_rows(inputs, IMPORTANCE_ROWS)
    with all_cores(), lesson.progress.task(f"pruning {lesson.teacher.name}", total=1) as advance:
        pruned = pruning.prune(
            parent,
            sample,
            target_latency_ratio=ratio,
            importance=importance,
            seconds_of=seconds_as_served(sample),
            seed=lesson.seed,
        )
        pruning.reconstruct(pruned.module, parent, pruned.specification, sample, seed=lesson.seed)
        advance()
    figures = {"measured_ratio": pruned.measured_ratio, "predicted_ratio": pruned.predicted_ratio}
    with replace_file(paths[SPECIFICATION_NAME]) as partial:
        partial.write_text(pruned.specification.to_json())
    with replace_file(paths[WEIGHTS_NAME]) as partial:
        save_model(pruned.module, str(partial))
    with replace_file(paths["figures.json"]) as partial:
        partial.write_text(json.dumps(figures))
    return pruned.module, pruned.specification, figures

"""Dense feed-forwards become experts of which each token visits some; kept only where the clock says that it pays."""

from pathlib import Path
from typing import TYPE_CHECKING

from halve.chains.files import first_rows, seconds_as_served, write_module
from halve.chains.lesson import Lesson, all_cores, module_of
from halve.chains.record import ChainStep
from halve.chains.students import distillation_step, started, taught
from halve.errors import ModelError
from halve.techniques.compression import mixture_of_experts
from halve.units import format_seconds

if TYPE_CHECKING:
    from halve.techniques.compression.distillation import Recipe

SPECIFICATION_NAME = "mixture.json"
CALIBRATION_ROWS, TIMED_ROWS = 512, 32


def write_mixture(
    folder: Path,
    *,
    lesson: Lesson,
    experts: int,
    active: int,
    recipe: "Recipe",
    name: str,
    shared_neurons_share: float = 0.0,
) -> None:
    """Convert the teacher, let it learn from what it was, and write it.

    It is timed before it is trained: where gathering tokens costs more than the skipped experts save, nothing is
    written. Files: `model.onnx`, `weights.safetensors`, `mixture.json` and `recipe.json`.

    Args:
        folder: Exists; other files in it stay.
        lesson: Its teacher is the model to convert, a torch module with dense feed-forwards.
        experts, active: Per feed-forward, and how many a token visits.
        recipe: Of the recovery.
        name: Of the checkpoints.
        shared_neurons_share: Of the neurons, those that every token visits, in [0, 1).

    Raises:
        ModelError: If it has no dense feed-forward, cannot be exported, or is no faster here.
        MissingExtraError: If a library is not installed.
    """
    with lesson.opened() as teacher:
        parent = module_of(teacher, owner=lesson.teacher.name)
        inputs = teacher.inputs(lesson.training.payloads)
    sample = first_rows(inputs, CALIBRATION_ROWS)
    with all_cores(), lesson.progress.task(f"splitting {lesson.teacher.name}", total=1) as advance:
        converted = mixture_of_experts.convert(
            parent,
            sample,
            experts=experts,
            active=active,
            shared_neurons_share=shared_neurons_share,
            seed=lesson.seed,
        )
        advance()
    account = mixture_of_experts.account(converted.module, first_rows(inputs, TIMED_ROWS))
    share = account.active_flops / account.dense_flops
    seconds = seconds_as_served(sample, rows=TIMED_ROWS)({"dense": parent, "mixture": converted.module})
    if seconds["mixture"] >= seconds["dense"]:
        raise ModelError(
            f"{active} of {experts} experts compute {share:.0%} of the feed-forwards and are no "
            f"faster here: {format_seconds(seconds['mixture'])} for {TIMED_ROWS} requests, "
            f"{format_seconds(seconds['dense'])} dense. Gathering costs more than is saved, and no memory is saved"
        )
    cache = lesson.answers()
    done = taught(
        converted.module,
        inputs,
        lesson=lesson,
        cache=cache,
        recipe=recipe,
        name=name,
        auxiliary=mixture_of_experts.auxiliary_losses,
    )
    step = ChainStep(
        technique="mixture_of_experts",
        parameters={"experts": experts, "active": active, "shared_neurons_share": shared_neurons_share},
        figures={
            "active_flops_ratio": share,
            "seconds_ratio": seconds["mixture"] / seconds["dense"],
        },
    )
    record = started(lesson).with_step(step).with_step(distillation_step(lesson, cache, recipe, done))
    (folder / SPECIFICATION_NAME).write_text(mixture_of_experts.specification_of(converted.module).to_json())
    write_module(folder, converted.module, inputs, record=record)

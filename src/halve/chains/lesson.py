"""What a student learns from: payloads, labels where there are some, and the teacher's answers, asked for once."""

import os
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from halve.core import Answerer, Bench, FloatArray, IntArray, Model, Payload, Progress, TensorAnswerer, TrainingSet
from halve.errors import ModelError, WorkloadError
from halve.techniques.compression import distillation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

ASKED_AT_ONCE = 32
"""Payloads of one call to the teacher."""

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What early stopping looks at; never trained on.

    Args:
        payloads: What is asked.
        scores: Logits, float32 (n, classes), to scores in [0, 1], float64 (n,).
        upper_bound: Those scores to the upper confidence bound of the gap to the teacher.
        target: Training ends once the bound is at most that.
    """

    payloads: "Sequence[Payload]"
    scores: Callable[[NDArray[np.float32]], FloatArray]
    upper_bound: Callable[[FloatArray], float]
    target: float


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A teacher, what it is asked, and where the work lies meanwhile.

    Args:
        teacher: Its name and fingerprint go into every record.
        load: Loads it.
        training: What it is asked.
        caches: Folder of the answers of all teachers; shared by every student.
        workspace: Gives a folder by name: checkpoints that a killed run goes on from.
        seed: Of everything that draws.
        progress: Where bars go.
        held_out: For early stopping; None trains all epochs.
    """

    teacher: Model
    load: Callable[[], Answerer]
    training: TrainingSet
    caches: Path
    workspace: Callable[[str], Path]
    seed: int
    progress: Progress
    held_out: HeldOut | None = None

    @classmethod
    def of_bench(cls, bench: Bench, teacher: Model) -> "Lesson":
        """Return the lesson that a run offers.

        Raises:
            WorkloadError: If the config names no training data.
        """
        training = bench.workload.training
        if training is None:
            raise WorkloadError("training must be given in the config to train anything. Got nothing.")
        return cls(
            teacher=teacher,
            load=lambda: bench.load(teacher, threads=cores()),
            training=training,
            caches=bench.workspace("teachers"),
            workspace=bench.workspace,
            seed=bench.seed,
            progress=bench.progress,
        )

    @property
    def labels(self) -> IntArray | None:
        """Class indices, -1 for none; None if nothing is labelled."""
        return self.training.references if np.any(self.training.references >= 0) else None

    def answers(self) -> "distillation.TeacherCache":
        """Return the teacher's answers to every payload: from the cache, else asked for now and kept."""
        payloads = self.training.payloads
        loaded: list[Answerer] = []

        def answer(start: int, stop: int) -> NDArray[np.float32]:
            if not loaded:
                loaded.append(self.load())
            rows = [
                _log_probabilities(loaded[0], payloads[at : min(at + ASKED_AT_ONCE, stop)], self.teacher.name)
                for at in range(start, stop, ASKED_AT_ONCE)
            ]
            return np.concatenate(rows)

        try:
            with (
                all_cores(),
                self.progress.task(f"asking {self.teacher.name}", total=len(payloads)) as advance,
            ):
                done = 0

                def told(rows: int) -> None:
                    nonlocal done
                    advance(rows - done)
                    done = rows

                return distillation.TeacherCache.open(
                    self.caches,
                    teacher=self.teacher.fingerprint,
                    inputs_sha256=self.training.sha256,
                    rows=len(payloads),
                    classes=None,
                    answer=answer,
                    progress=told,
                )
        finally:
            for answerer in loaded:
                answerer.close()

    @contextmanager
    def opened(self) -> "Iterator[TensorAnswerer]":
        """Give the teacher loaded, for its tensors and its module.

        Raises:
            ModelError: If it shows none.
        """
        answerer = self.load()
        try:
            if not isinstance(answerer, TensorAnswerer):
                raise ModelError(f"model {self.teacher.name!r} shows no tensors to train on")
            yield answerer
        finally:
            answerer.close()


def module_of(answerer: TensorAnswerer, *, owner: str) -> "nn.Module":
    """Return a copy of the torch module behind an answerer, free to be trained.

    Raises:
        ModelError: If it runs something else.
    """
    import copy

    module = answerer.runtime_model
    if isinstance(module, Path) or not hasattr(module, "state_dict"):
        raise ModelError(f"model {owner!r} must be a torch module to be changed. It is a file.")
    return copy.deepcopy(cast("nn.Module", module)).requires_grad_(True)


@contextmanager
def all_cores() -> "Iterator[None]":
    """Let torch use every core for the time of the context: engines set it to what they are measured with."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _log_probabilities(answerer: Answerer, payloads: "Sequence[Payload]", owner: str) -> NDArray[np.float32]:
    probabilities = answerer.answer(payloads).probabilities
    if probabilities is None:
        raise ModelError(f"model {owner!r} must give probabilities to teach. It gives answers alone.")
    return distillation.log_probabilities_of(probabilities)

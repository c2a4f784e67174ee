"""One training run: its state, its epochs, and how it goes on after a kill."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from halve.errors import ModelError
from halve.techniques.compression.distillation.batching import MASK, Augment, Inputs, cut, predicted_logits
from halve.techniques.compression.distillation.checkpoint import Keeper, State
from halve.techniques.compression.distillation.outcome import Check, Distilled, Epoch
from halve.techniques.compression.distillation.recipe import Hint, Recipe
from halve.techniques.compression.distillation.sources import Loss
from halve.techniques.compression.distillation.updates import Average, Optimizers, load_state, state_of

if TYPE_CHECKING:
    import torch
    from torch import nn


POOLED_BATCHES = 16
"""Where there is an `attention_mask`, so many batches of random rows are dealt out by length: less padding."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What happens to a batch before the student sees it.

    Args:
        augment: At random, to each batch; None for nothing.
        views: Deterministic; one for each row and epoch, by chance.
    """

    augment: Augment | None = None
    views: tuple[Augment, ...] = ()


def updates(rows: int, recipe: Recipe) -> int:
    """Return the number of updates per epoch."""
    return max(1, rows // recipe.batch_size)


class Run:
    """One training run and all of its state.

    Args:
        student: Trained in place.
        inputs: What it is trained on.
        loss: Of its logits.
        recipe: How.
        changes: What happens to a batch before the student sees it.
    """

    keeper: Keeper
    check: Check | None = None
    progress: Callable[[], None] | None = None
    auxiliary: "Callable[[nn.Module], torch.Tensor] | None" = None

    def __init__(
        self, student: "nn.Module", inputs: Inputs, loss: Loss, *, recipe: Recipe, changes: Changes | None = None
    ) -> None:
        import torch

        self.student, self.loss, self.recipe = student, loss, recipe
        self.inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
        changes = changes or Changes()
        self.augment, self.views = changes.augment, changes.views
        self.rows = len(next(iter(inputs.values())))
        self.updates = updates(self.rows, recipe)
        self.epoch, self.batch, self.loss_sum = 0, 0, 0.0
        self.history: list[Epoch] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch, self.seconds, self._begun = 0, 0.0, time.perf_counter()

    def add_hints(self, teacher: "nn.Module | None", hints: Sequence[Hint]) -> None:
        """Make projections, optimizers and the average, always in this order: a resumed run draws the same."""
        from halve.techniques.compression.distillation.hints import HintLoss

        first = np.arange(min(2, self.rows))
        batch = cut({name: tensor[first] for name, tensor in self.inputs.items()})
        self.hints = HintLoss(self.student, teacher, hints, recipe=self.recipe, batch=batch)
        total = self.updates * self.recipe.epochs
        modules = {"": self.student, "hints.": self.hints}
        self.optimizers = Optimizers(modules, recipe=self.recipe, total=total)
        self.average = Average(self.student, self.recipe.ema_decay)

    def finish(self) -> Distilled:
        """Train to the end, from wherever the run is."""
        self._resume()
        while self.epoch < self.recipe.epochs and not self._is_near_enough():
            self._train_epoch()
        self.keeper.write(self._state(is_finished=True))
        load_state(self.student, self._answering())
        self.student.eval()
        best = self.history[self.best_epoch]
        return Distilled(
            history=tuple(self.history),
            best_epoch=self.best_epoch,
            gap_upper_bound=best.gap_upper_bound,
            seconds=self._spent(),
            stopped_early=len(self.history) < self.recipe.epochs,
        )

    def _train_epoch(self) -> None:
        self.student.train()
        batches = self._order()
        for number in range(self.batch, self.updates):
            chosen = batches[number]
            self.loss_sum += self._update(chosen, self.epoch * self.updates + number)
            self.batch = number + 1
            if self.progress is not None:
                self.progress()
            if self.batch < self.updates and self.keeper.is_due(at_end_of_epoch=False):
                self.keeper.write(self._state())
        if not math.isfinite(self.loss_sum):
            raise ModelError(
                f"the loss must be finite. Got {self.loss_sum} in epoch {self.epoch}; lower learning_rate."
            )
        self._judge()
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        if self.epoch < self.recipe.epochs and self.keeper.is_due(at_end_of_epoch=True):
            self.keeper.write(self._state())

    def _order(self) -> list[NDArray[np.int64]]:
        """Return the rows of each batch of this epoch, at random; texts of like length share a batch."""
        generator = np.random.default_rng((self.recipe.seed, self.epoch))
        size = min(self.recipe.batch_size, self.rows)
        order = generator.permutation(self.rows)[: self.updates * size]
        mask = self.inputs.get(MASK)
        if mask is None:
            return list(order.reshape(self.updates, size))
        lengths = mask.sum(dim=1).numpy()
        pools = [order[start : start + POOLED_BATCHES * size] for start in range(0, len(order), POOLED_BATCHES * size)]
        sorted_rows = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
        return list(generator.permutation(sorted_rows.reshape(self.updates, size)))

    def _update(self, chosen: NDArray[np.int64], update: int) -> float:
        batch = {name: tensor[chosen] for name, tensor in self.inputs.items()}
        rows = chosen
        if self.views:
            batch, rows = self._viewed(batch, chosen)
        batch = cut(batch)
        if self.augment is not None:
            batch = self.augment(batch)
        with self.hints.watched() as seen:
            logits = self.student(*batch.values())
            loss = self.loss(logits, rows, batch) + self.hints(seen, batch)
        if self.auxiliary is not None:
            loss = loss + self.auxiliary(self.student)
        loss.backward()
        self.optimizers.step(update)
        self.average.step(update)
        return float(loss.detach())

    def _viewed(
        self, batch: "dict[str, torch.Tensor]", chosen: NDArray[np.int64]
    ) -> "tuple[dict[str, torch.Tensor], NDArray[np.int64]]":
        """Return the batch with one of the views of each row, and the rows of their targets."""
        import torch

        drawn = torch.randint(len(self.views), (len(chosen),))
        changed = {name: tensor.clone() for name, tensor in batch.items()}
        for number, view in enumerate(self.views):
            places = torch.nonzero(drawn == number)[:, 0]
            if len(places):
                part = view({name: tensor[places] for name, tensor in batch.items()})
                for name, tensor in part.items():
                    changed[name][places] = tensor
        return changed, chosen + self.rows * drawn.numpy()

    def _judge(self) -> None:
        """Close the epoch: keep its loss, and its weights if they are the best."""
        bound = None
        if self.check is not None:
            current = {name: tensor.detach().clone() for name, tensor in state_of(self.student).items()}
            averaged = self.average.state()
            load_state(self.student, averaged)
            logits = predicted_logits(self.student, self.check.inputs)
            load_state(self.student, current)
            bound = float(self.check.upper_bound(self.check.scores(logits)))
            known = self.history[self.best_epoch].gap_upper_bound if self.history else None
            if known is None or bound < known:
                self.best, self.best_epoch = averaged, self.epoch
        else:
            self.best_epoch = self.epoch
        self.history.append(Epoch(loss=self.loss_sum / self.updates, gap_upper_bound=bound))

    def _is_near_enough(self) -> bool:
        if self.check is None or not self.history:
            return False
        bound = self.history[self.best_epoch].gap_upper_bound
        return bound is not None and bound <= self.check.target

    def _answering(self) -> "dict[str, torch.Tensor]":
        return self.best or self.average.state()

    def _spent(self) -> float:
        return self.seconds + time.perf_counter() - self._begun

    def _state(self, *, is_finished: bool = False) -> State:
        import torch

        document = {
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "history": [asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "seconds": self._spent(),
            "finished": is_finished,
        }
        groups = (
            {"best": self._answering()}
            if is_finished
            else {
                "student": state_of(self.student),
                "hints": self.hints.state_dict(),
                "optimizers": self.optimizers.tensors(),
                "average": self.average.values,
                "best": self.best,
                "generator": {"state": torch.random.get_rng_state()},
            }
        )
        tensors = {f"{group}.{name}": tensor for group, values in groups.items() for name, tensor in values.items()}
        return State(tensors=tensors, document=document)

    def _resume(self) -> None:
        import torch

        state = self.keeper.read()
        if state is None:
            return
        document = state.document
        self.epoch, self.batch, self.loss_sum = document["epoch"], document["batch"], document["loss_sum"]
        self.history = [Epoch(**epoch) for epoch in document["history"]]
        self.best_epoch, self.seconds = document["best_epoch"], document["seconds"]
        self.best = state.part("best")
        if document["finished"]:
            self.epoch = self.recipe.epochs
            return
        load_state(self.student, state.part("student"))
        self.hints.load_state_dict(state.part("hints"))
        self.optimizers.load(state.part("optimizers"))
        self.average.values = state.part("average")
        torch.random.set_rng_state(state.part("generator")["state"])

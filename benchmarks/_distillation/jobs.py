"""One student by one way and seed: trained once, kept under the hash of code and data."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks._distillation.teachers import Task, logits_of, source_sha256
from benchmarks._peers.environments import unpacked
from halve.demo.training import computed_once
from halve.techniques.compression.distillation import distil, distillation_loss, updates

TORCHDISTILL = "torchdistill==1.1.5"
PLAIN = {"temperature": 4.0, "alpha": 0.9}
"""Of the hand-written loop and of torchdistill, as in most tutorials; its own alpha is 1 minus ours."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def accuracy(task: Task, *, way: str, seed: int) -> float:
    """Return the accuracy of a student on the test data, in percent."""
    return 100 * float(
        (logits_of(student(task, way=way, seed=seed), task.test, 250).argmax(1) == task.test_labels).mean()
    )


def student(task: Task, *, way: str, seed: int) -> torch.nn.Module:
    """Return a trained student in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)
        module = task.new_student()
    identity = {"way": way, "seed": seed, "code": source_sha256(), "task": task.name, "recipe": repr(task.recipe)}
    identity["labelled_epochs"] = 0 if way == "halve" else task.labelled_epochs or 0
    unused = way == "halve" and task.recipe.alpha == 1
    data = task.inputs if unused else {**task.inputs, "labels": task.labels}

    def compute() -> dict[str, torch.Tensor]:
        _train(module, task, way=way, seed=seed)
        return dict(module.state_dict())

    state = computed_once(f"benchmark-{task.name}-{way}", recipe=identity, data=data, compute=compute)
    module.load_state_dict(state)
    return module.eval()


def _train(module: torch.nn.Module, task: Task, *, way: str, seed: int) -> None:
    labelled = len(task.labels)
    recipe = replace(task.recipe, seed=seed)
    some = {name: array[:labelled] for name, array in task.inputs.items()}
    total = recipe.epochs * updates(task.rows, recipe)
    if way == "halve":
        labels = np.concatenate([task.labels, np.full(task.rows - labelled, -1, np.int64)])
        distil(module, task.inputs, task.cache(), labels=labels, recipe=recipe, augment=task.augment)
        return
    equal = replace(recipe, alpha=0.0, epochs=task.labelled_epochs or round(total / updates(labelled, recipe)))
    if way == "halve_labelled_rows":
        taught = replace(equal, alpha=recipe.alpha)
        distil(
            module, some, task.cache().targets(slice(labelled)), labels=task.labels, recipe=taught, augment=task.augment
        )
        return
    if way == "cross_entropy":
        distil(module, some, None, labels=task.labels, recipe=equal, augment=task.augment)
        return
    answers = torch.from_numpy(task.cache().log_probabilities()[:labelled])
    loss = _hand_written_loss if way == "hand_written" else _torchdistill_loss()
    _plain_loop(module, task, answers, recipe=equal, loss=loss)


def _plain_loop(module: torch.nn.Module, task: Task, answers: torch.Tensor, *, recipe: Any, loss: Loss) -> None:
    """Train as a tutorial does: shuffle, forward, loss, backward, one cycle of the learning rate."""
    torch.manual_seed(recipe.seed)
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding):
            part.sparse = False
    labels = torch.from_numpy(task.labels)
    inputs = {name: torch.from_numpy(array[: len(labels)]) for name, array in task.inputs.items()}
    steps = recipe.epochs * (len(labels) // recipe.batch_size)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            module.parameters(), lr=recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.learning_rate, total_steps=steps)
    module.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(labels))[: len(labels) // recipe.batch_size * recipe.batch_size]
        for chosen in order.split(recipe.batch_size):
            batch = {name: tensor[chosen] for name, tensor in inputs.items()}
            if "attention_mask" in batch:
                longest = int(batch["attention_mask"].sum(dim=1).max())
                batch = {name: tensor[:, :longest] for name, tensor in batch.items()}
            batch = batch if task.augment is None else task.augment(batch)
            value = loss(module(*batch.values()), answers[chosen], labels[chosen])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    module.eval()


def _hand_written_loss(logits: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    temperature, alpha = PLAIN["temperature"], PLAIN["alpha"]
    soft = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.softmax(answers / temperature, dim=1),
        reduction="batchmean",
    )
    return alpha * temperature**2 * soft + (1 - alpha) * functional.cross_entropy(logits, labels)


def _torchdistill_loss() -> Loss:
    """Return torchdistill's KDLoss, out of its wheel without its dependencies: its losses need none of them."""
    folder = str(unpacked(TORCHDISTILL, log=lambda line: print(line, file=sys.stderr)))
    if folder not in sys.path:
        sys.path.append(folder)
    losses = importlib.import_module("torchdistill.losses.mid_level")
    criterion = losses.KDLoss(
        "logits", "output", "logits", "output", temperature=PLAIN["temperature"], alpha=1 - PLAIN["alpha"]
    )

    def loss(logits: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = criterion({"logits": {"output": logits}}, {"logits": {"output": answers}}, labels)
        return value

    return loss


def largest_difference_from_torchdistill() -> float:
    """Return the largest relative difference of the three losses on random logits, and refuse one above 1e-5."""
    torch.manual_seed(0)
    theirs, worst = _torchdistill_loss(), 0.0
    for classes in (2, 10, 150):
        logits, answers = 3 * torch.randn(64, classes), (3 * torch.randn(64, classes)).log_softmax(1)
        labels = torch.randint(classes, (64,))
        ours = distillation_loss(logits, answers, labels, **PLAIN)
        for other in (theirs, _hand_written_loss):
            worst = max(worst, float((other(logits, answers, labels) - ours).abs() / ours))
    if worst > 1e-5:
        raise SystemExit(f"the losses differ by {worst:g}: they would not be comparable")
    return worst

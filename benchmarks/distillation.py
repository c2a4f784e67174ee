"""Students of two teachers: distilled by halve, by a plain hand-written loop, by torchdistill's loss, or not at all.

Fashion-MNIST: three convolutions taught by a residual network that is averaged over ten views; 5,000 images have a
label, 25,000 more have none. CLINC150: convolutions over words taught by all-MiniLM-L6-v2 with a linear head; 1,500
queries have a label, 13,500 more and 30,000 variations have none. Both teachers were trained on all labels: that is
what a teacher knows and its student may not. Every way trains the same network with the same augmentation, from the
same first weights for a seed, for the same number of updates; on the 1,500 queries, for the epochs that suit labels
alone best. Settings were chosen on training images and validation queries; test data are scored once, after training.

The intents are asked once more with all 15,000 labels: there, little is left to teach.

- halve: the teacher's answers from the cache, to labelled and unlabelled inputs alike.
- halve_labelled_rows: the same on the labelled inputs alone: what the answers are worth where labels are there too.
- cross_entropy: labels alone, through halve's trainer.
- hand_written: T = 4, 0.9 of the teacher, the loop of many a tutorial, on the labelled rows.
- torchdistill: the same loop with its KDLoss, which is first shown to give the same numbers as halve's loss.

Intervals are Student's t over seeds at 95 %; gains are paired by seed, and the figure is the interval's lower end.
Costs are wall time in onnxruntime on one thread, tokenization included, interleaved.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from benchmarks._common import Estimate, Result, interleaved, main, table
from benchmarks._distillation import jobs
from benchmarks._distillation.teachers import Task, intents_all_labels_task, intents_task, vision_task

SEEDS = {False: (0, 1, 2, 3, 4), True: (0, 1)}
WAYS = ("halve", "cross_entropy", "halve_labelled_rows", "hand_written", "torchdistill")
FEWER_SEEDS = {"hand_written": 3, "torchdistill": 2}
"""Seeds of the ways that only stand beside the others."""

TASKS = {"vision": vision_task, "intents": intents_task, "intents_all_labels": intents_all_labels_task}
SHORT = {"intents_all_labels": ("halve", "cross_entropy", "torchdistill")}
"""Tasks with fewer ways; the intents' student of halve's way sees no label and is the same in both."""

AT_ONCE = len(os.sched_getaffinity(0))
"""Students trained side by side, each on one thread."""
BATCHES = (1, 32)

Accuracies = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Ask:
    """One call of a worker process."""

    task: str
    way: str
    seed: int
    quick: bool


def interval(values: Sequence[float] | Accuracies) -> Estimate:
    """Return the mean and its 95 % interval by Student's t; one value alone has an infinitely wide one cut to it."""
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Estimate(median=mean, low=mean, high=mean)
    half = float(student_t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Estimate(median=mean, low=mean - half, high=mean + half)


def overlap(one: Estimate, other: Estimate) -> bool:
    """Return whether two intervals have a point in common."""
    return one.low <= other.high and other.low <= one.high


def answered(ask: Ask) -> float:
    """Return the accuracy of one student on the test data, in percent; runs in a process of its own."""
    import torch

    torch.set_num_threads(1)
    return jobs.accuracy(TASKS[ask.task](ask.quick), way=ask.way, seed=ask.seed)


def prepared(name: str, quick: bool) -> tuple[float, float]:
    """Fill a task's teacher cache; return bytes per example and the seconds that it took, whenever that was."""
    import torch

    torch.set_num_threads(1)
    cache = TASKS[name](quick).cache()
    return cache.bytes_per_example, cache.seconds


def costs(task: Task, folder: Path, *, rounds: int) -> dict[int, dict[str, Estimate | float]]:
    """Return, by batch size, microseconds per query of teacher and student and the ratio of their medians."""
    answerers = {"teacher": task.served(task.teacher(), folder / "teacher.onnx")}
    answerers["student"] = task.served(jobs.student(task, way="halve", seed=0), folder / "student.onnx")
    texts = task.texts[:64]
    found: dict[int, dict[str, Estimate | float]] = {}
    for batch in BATCHES:
        parts = [texts[start : start + batch] for start in range(0, len(texts), batch)]
        actions = {name: _all_parts(answer, parts) for name, answer in answerers.items()}
        seconds = interleaved(actions, rounds=rounds)
        per_query = {name: 1e6 * float(np.median(values)) / len(texts) for name, values in seconds.items()}
        ratio = float(np.median(seconds["teacher"] / seconds["student"]))
        found[batch] = {**per_query, "ratio": ratio}
    return found


def _all_parts(answer: Callable[[list[str]], object], parts: list[list[str]]) -> Callable[[], object]:
    return lambda: [answer(part) for part in parts]


def run(quick: bool) -> Result:
    import tempfile

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started, seeds = time.perf_counter(), SEEDS[quick]
    difference = jobs.largest_difference_from_torchdistill()
    asks = [
        Ask(task, way, seed, quick)
        for task in TASKS
        for way in SHORT.get(task, WAYS)
        for seed in seeds[: FEWER_SEEDS.get(way)]
    ]
    with ProcessPoolExecutor(AT_ONCE, mp_context=multiprocessing.get_context("spawn")) as pool:
        caches = dict(zip(TASKS, pool.map(prepared, TASKS, [quick] * len(TASKS)), strict=True))
        answers = list(pool.map(answered, asks))
    accuracies: dict[str, dict[str, list[float]]] = {task: {way: [] for way in SHORT.get(task, WAYS)} for task in TASKS}
    for ask, accuracy in zip(asks, answers, strict=True):
        accuracies[ask.task][ask.way].append(accuracy)
    intents = TASKS["intents"](quick)
    teachers = {name: make(quick).teacher_accuracy() for name, make in TASKS.items()}
    with tempfile.TemporaryDirectory() as folder:
        cost = costs(intents, Path(folder), rounds=5 if quick else 15)
    result = summary(accuracies, teachers, caches, cost)
    result.figures["torchdistill_loss_largest_difference"] = difference
    result.figures["seconds"] = time.perf_counter() - started
    print(_table(accuracies, teachers))
    for batch, one in cost.items():
        print(f"batch {batch}: MiniLM {one['teacher']:,.0f} us, student {one['student']:,.0f} us: {one['ratio']:.0f}x")
    return result


def summary(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    teachers: Mapping[str, float],
    caches: Mapping[str, tuple[float, float]],
    cost: Mapping[int, Mapping[str, Any]],
) -> Result:
    """Return the figures: gains over cross-entropy, the drop, the cost ratio, and what the caches took."""
    result = Result()
    for task, by_way in accuracies.items():
        ours, plain = interval(by_way["halve"]), interval(by_way["cross_entropy"])
        gain = interval(np.subtract(by_way["halve"], by_way["cross_entropy"]))
        result.figures[f"{task}_gain_over_cross_entropy_points"] = gain.low
        result.figures[f"{task}_mean_gain_points"] = gain
        if "halve_labelled_rows" in by_way:
            same = np.subtract(by_way["halve_labelled_rows"], by_way["cross_entropy"])
            result.figures[f"{task}_gain_on_labelled_rows_points"] = interval(same)
        result.figures[f"{task}_halve_accuracy"] = ours
        result.figures[f"{task}_cross_entropy_accuracy"] = plain
        result.figures[f"{task}_intervals_overlap"] = "yes" if overlap(ours, plain) else "no"
        result.figures[f"{task}_teacher_accuracy"] = teachers[task]
        result.figures[f"{task}_drop_points"] = teachers[task] - ours.median
        result.figures[f"{task}_teacher_cache_seconds"] = caches[task][1]
        for way in [way for way in ("hand_written", "torchdistill") if way in by_way]:
            result.peers.setdefault(way, {})[f"{task}_accuracy"] = interval(by_way[way])
    result.figures["teacher_cache_bytes_per_example"] = max(size for size, _ in caches.values())
    result.figures["intents_cost_ratio"] = min(one["ratio"] for one in cost.values())
    for batch, one in cost.items():
        for name in ("teacher", "student"):
            result.figures[f"intents_{name}_microseconds_batch_{batch}"] = one[name]
    return result


def _table(accuracies: Mapping[str, Mapping[str, Sequence[float]]], teachers: Mapping[str, float]) -> str:
    rows = []
    for task, by_way in accuracies.items():
        rows.append([f"{task}: teacher", f"{teachers[task]:.2f}", ""])
        for way, values in by_way.items():
            found = interval(values)
            rows.append([f"{task}: {way}", f"{found.median:.2f}", f"[{found.low:.2f}, {found.high:.2f}]"])
    return table(["who", "accuracy", "95 % over seeds"], rows)


if __name__ == "__main__":
    main("distillation", run, packages=("torch", "onnxruntime", "tokenizers"))

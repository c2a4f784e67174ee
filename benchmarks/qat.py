"""Accuracy after quantization-aware training, in the exported runtime: halve, Brevitas and torchao.

A residual network with batch norm on Fashion-MNIST. All tools start from the same fp32 weights and train for the same
epochs on the same images in the same order (one seed, one order), with one loop: SGD under a cosine, the fp32 network
as teacher. First and last product have 8 bits everywhere. The learning rate is chosen for each tool out of the same
list on 10,000 held-out training images, at W4A4. Scored once on the 10,000 test images: ours and Brevitas (QCDQ) as
ONNX files in onnxruntime, torchao as the program that `convert_pt2e` returns. Zero epochs is post-training
quantization by the same tool at the same bits. Drops and differences are in percentage points; the 95 % intervals
are of the mean over seeds and paired by image, so they speak of the test images, and the range speaks of the seeds.
"""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from examples.vision import examples, training_set
from safetensors.torch import save_file

from benchmarks._common import Estimate, Result, main, table
from benchmarks._peers.environments import PeerError
from benchmarks._peers_training.client import Arrays, ask, log
from benchmarks._peers_training.network import residual
from halve.demo.training import ImageRecipe, trained

BITS = {"w8a8": (8, 8), "w4a8": (4, 8), "w4a4": (4, 4)}
CHOSEN_AT = "w4a4"
LEARNING_RATES = (0.01, 0.03, 0.1)
TOOLS = {"halve": ("halve", "ours"), "brevitas": ("brevitas-onnx", "brevitas"), "torchao": ("torchao", "torchao")}
FP32 = ImageRecipe(epochs=5, peak_learning_rate=0.2, batch_size=125, shift_pixels=1, flip=True)
AT_ONCE = 2
LIMIT_SECONDS = 900

Rights = np.ndarray[Any, np.dtype[np.bool_]]


def mean_difference(better: Rights, worse: Rights) -> Estimate:
    """Return the mean of better - worse over images in points, and its 95 % interval by the normal approximation.

    Args:
        better, worse: bool (seeds, images); seeds are averaged for each image first.
    """
    points = 100 * (better.mean(axis=0) - worse.mean(axis=0))
    mean, error = float(points.mean()), float(points.std(ddof=1) / np.sqrt(len(points)))
    return Estimate(median=mean, low=mean - 1.96 * error, high=mean + 1.96 * error)


def spread(rights: Rights) -> str:
    """Return accuracy in percent: the mean over seeds and their range."""
    by_seed = 100 * rights.mean(axis=1)
    return f"{by_seed.mean():.2f} [{by_seed.min():.2f}, {by_seed.max():.2f}]"


class Bench:
    """The files that all jobs read, and the jobs."""

    def __init__(self, folder: Path, *, rows: int) -> None:
        images, labels = training_set()
        unseen, self._answers = examples()
        self.network = trained(residual, name="benchmark-residual", recipe=FP32, images=images, labels=labels)
        self.rows = rows
        self.files = {"images": folder / "images.npz", "weights": folder / "weights.safetensors"}
        self._held_out = len(unseen) // 2
        np.savez(
            self.files["images"],
            train_images=as_bytes(images[:rows]),
            train_labels=labels[:rows],
            held_out_images=as_bytes(unseen[: self._held_out]),
            test_images=as_bytes(unseen[self._held_out :]),
        )
        save_file(dict(self.network.state_dict()), self.files["weights"])
        self._unseen = unseen

    def fp32(self) -> Rights:
        """Return which test images the fp32 network answers rightly, bool (1, images)."""
        import torch

        with torch.inference_mode():
            parts = torch.from_numpy(self._unseen[self._held_out :]).split(500)
            answers = torch.cat([self.network(part).argmax(1) for part in parts]).numpy()
        return np.asarray(answers == self._answers[self._held_out :])[None]

    def job(self, tool: str, bits: str, *, rows: int, epochs: int, learning_rate: float = 0.0, seed: int = 0) -> Arrays:
        peer, module = TOOLS[tool]
        weight_bits, activation_bits = BITS[bits]
        job = {
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "rows": rows,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "seed": seed,
        }
        answer = ask(peer, module, job, files=self.files, limit_seconds=LIMIT_SECONDS)
        log(f"{tool} {bits}: {epochs} epochs of {rows:,}, learning rate {learning_rate:g}, seed {seed}")
        return answer

    def rights(self, answer: Arrays, part: str) -> Rights:
        expected = self._answers[: self._held_out] if part == "held_out" else self._answers[self._held_out :]
        return np.asarray(answer[part].argmax(axis=1) == expected)


def as_bytes(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.rint(images * 255).astype(np.uint8)


def chosen_rate(bench: Bench, tool: str, *, rows: int) -> float:
    """Return the learning rate with the most held-out images right at W4A4."""
    scores = [
        bench.rights(bench.job(tool, CHOSEN_AT, rows=rows, epochs=1, learning_rate=rate), "held_out").mean()
        for rate in LEARNING_RATES
    ]
    return LEARNING_RATES[int(np.argmax(scores))]


def measure(bench: Bench, tool: str, *, seeds: Sequence[int], choice_rows: int) -> dict[str, Any]:
    """Return rights by bits after training and, as `BITS ptq`, without; `rate`; `failed` with the reason if it did."""
    found: dict[str, Any] = {}
    try:
        found["rate"] = chosen_rate(bench, tool, rows=choice_rows)
        for bits in reversed(BITS):
            untrained = bench.job(tool, bits, rows=bench.rows, epochs=0)
            found[f"{bits} ptq"] = bench.rights(untrained, "test")[None]
            answers = [
                bench.job(tool, bits, rows=bench.rows, epochs=1, learning_rate=found["rate"], seed=seed)
                for seed in seeds
            ]
            found[bits] = np.stack([bench.rights(answer, "test") for answer in answers])
            if "parity_steps" in answers[0]:
                found[f"{bits} parity"] = max(float(answer["parity_steps"]) for answer in answers)
    except PeerError as error:
        found["failed"] = str(error)
        log(f"{tool}: {error}")
    return found


def run(quick: bool) -> Result:
    rows, choice_rows, seeds = (5_000, 2_000, [0]) if quick else (20_000, 8_000, [0, 1, 2])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        bench = Bench(Path(folder), rows=rows)
        jobs = {tool: pool.submit(measure, bench, tool, seeds=seeds, choice_rows=choice_rows) for tool in TOOLS}
        found = {tool: job.result() for tool, job in jobs.items()}
        fp32 = bench.fp32()
    if "failed" in found["halve"]:
        raise SystemExit(f"halve failed: {found['halve']['failed']}")
    print(table(["tool and bits", "PTQ", "QAT: mean [range of seeds]", "fp32 - QAT [95 %]"], _rows(found, fp32)))
    return summary(found, fp32)


def _rows(found: Mapping[str, Mapping[str, Any]], fp32: Rights) -> list[list[object]]:
    rows: list[list[object]] = [["fp32", f"{100 * fp32.mean():.2f}", "", ""]]
    for tool, one in found.items():
        for bits in BITS:
            if bits in one:
                untrained = f"{100 * one[f'{bits} ptq'].mean():.2f}"
                rows.append([f"{tool} {bits}", untrained, spread(one[bits]), mean_difference(fp32, one[bits])])
        if "failed" in one:
            rows.append([f"{tool}: {one['failed']}", "", "", ""])
    return rows


def summary(found: Mapping[str, Mapping[str, Any]], fp32: Rights) -> Result:
    """Return figures: per bits our drop and lead over the best peer that reached it, with PTQ and the worst parity."""
    result = Result()
    result.figures["fp32_accuracy"] = float(fp32.mean())
    ours = found["halve"]
    for bits in BITS:
        result.figures[f"{bits}_accuracy_drop_points"] = mean_difference(fp32, ours[bits])
        result.figures[f"{bits}_ptq_accuracy_drop_points"] = mean_difference(fp32, ours[f"{bits} ptq"])
        result.figures[f"{bits}_parity_largest_steps"] = ours[f"{bits} parity"]
        peers = {tool: one for tool, one in found.items() if tool != "halve" and bits in one}
        if peers:
            best = max(peers, key=lambda tool: float(peers[tool][bits].mean()))
            result.figures[f"{bits}_minus_best_peer_points"] = mean_difference(ours[bits], peers[best][bits])
    for tool, one in found.items():
        values: dict[str, Any] = {"learning_rate": one["rate"]} if "rate" in one else {}
        for bits in [bits for bits in BITS if bits in one]:
            values[f"{bits}_accuracy"] = float(one[bits].mean())
            values[f"{bits}_ptq_accuracy"] = float(one[f"{bits} ptq"].mean())
        result.peers[tool] = values | ({"failed": one["failed"]} if "failed" in one else {})
    return result


if __name__ == "__main__":
    main("qat", run, packages=("torch", "onnxruntime"))

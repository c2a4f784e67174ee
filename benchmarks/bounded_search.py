"""Ask for at most 1 point of loss, 200 times: how often is the chosen model worse on images that no search saw?

A small depthwise network, trained on 40,000 images of Fashion-MNIST; 30,000 images that no training saw are the
population. Each search gets a validation set of 2,000 drawn from them without replacement and chooses a model; its
true drop is measured on the other 28,000. A violation is a true drop above 1 point. So that the tolerance matters,
the channels of the network are rescaled between layers by log-normal factors, which leaves the fp32 answers as they
are and makes one INT8 grid per tensor too coarse for some channels, as happens in real networks without care.

Ours: candidates in an order fixed before any validation image is seen (more and more layers in INT8, by the error each
causes alone on unlabelled training images, then fewer bits), tested in that order by the exact paired bound at
95 %; the last that passes before the first failure is chosen (fixed-sequence testing). NNCF's accuracy control and
Neural Compressor's autotune run for real, with the same number of evaluations of the validation set at most; both
compare a point estimate with the tolerance. Where fewer searches of Neural Compressor ran for real than asked, its
rule is replayed on its recorded candidates for all, and the agreement with the real runs is a figure.
"""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from examples.vision import examples, training_set
from safetensors.torch import save_file
from torch import nn

from benchmarks._common import Result, main, table
from benchmarks._peers.environments import PeerError
from benchmarks._peers_training.client import Arrays, ask, log
from benchmarks._peers_training.network import depthwise
from benchmarks._peers_training.neural_compressor import rule
from benchmarks._peers_training.searching import validation_rows
from halve.demo.training import ImageRecipe, trained
from halve.gate import drop_upper_bound
from halve.gate.exact import clopper_pearson
from halve.techniques.compression.quantization.affine import ACTIVATIONS, Scheme, grid_of_range, quantize_tensor
from halve.techniques.compression.quantization.calibration import observe
from halve.techniques.compression.quantization.export import export_onnx
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.observers import MinMax
from halve.techniques.compression.quantization.qdq import write_qdq
from halve.techniques.compression.quantization.runtime import run_logits

MAX_DROP = 0.01
CONFIDENCE = 0.95
TRAINED_ON = 40_000
VALIDATION = 2_000
CALIBRATION = 300
RESCALING = 1.1
"""Standard deviation of the logarithm of the channel factors."""

MOST_EVALUATIONS = 7
"""Of the whole validation set by one search, fp32 included."""

LADDER = ((6, 8), (4, 8), (3, 8), (2, 8), (0, 8), (0, 6))
"""Our candidates: layers left in fp32 and bits of the other weights; one evaluation each, and one of fp32."""

RECIPE = ImageRecipe(epochs=3, peak_learning_rate=0.2, batch_size=125, shift_pixels=1, flip=True)
SHARD = 10
AT_ONCE = 2
LIMIT_SECONDS = 900

Rights = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model, which images of the population it answers rightly, and the bytes of its weights."""

    name: str
    right: Rights
    weight_bytes: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one search chose and what it looked at."""

    right: Rights
    weight_bytes: float
    evaluations: int


def rescaled(network: nn.Sequential, *, deviation: float, seed: int = 0) -> nn.Sequential:
    """Multiply each channel that a convolution writes by a factor and divide it out in the next one; ReLU allows it."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    layers = list(network)
    places = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for here, following in pairwise(places):
            norm, after = layers[here + 1], layers[following]
            factors = torch.exp(deviation * torch.randn(norm.num_features, generator=generator))
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            view = (-1, 1, 1, 1) if after.groups > 1 else (1, -1, 1, 1)
            after.weight.div_(factors.reshape(view))
    return network


def fixed_sequence(baseline: Rights, candidates: Sequence[Rights]) -> tuple[int | None, int]:
    """Return the last candidate certified before the first failure, or None, and how many were tested.

    Args:
        baseline: bool (images,), on the validation set.
        candidates: The same, from least to most aggressive.
    """
    for number, candidate in enumerate(candidates):
        bound = drop_upper_bound(baseline.astype(float), candidate.astype(float), confidence=CONFIDENCE)
        if bound > MAX_DROP:
            return (number - 1 if number else None), number + 1
    return len(candidates) - 1, len(candidates)


def true_drop(baseline: Rights, chosen: Rights, rows: Any) -> float:
    """Return the drop on the images of the population that are not in `rows`."""
    unseen = np.ones(len(baseline), dtype=bool)
    unseen[rows] = False
    return float(baseline[unseen].mean() - chosen[unseen].mean())


def batches(images: np.ndarray[Any, Any], size: int = 500) -> list[dict[str, Any]]:
    return [{"images": images[start : start + size]} for start in range(0, len(images), size)]


class Bench:
    """The network, the population, and the files that peers read."""

    def __init__(self, folder: Path) -> None:
        images, labels = training_set()
        unseen, answers = examples()
        self.population = np.concatenate([images[TRAINED_ON:], unseen])
        self.labels = np.concatenate([labels[TRAINED_ON:], answers])
        self.calibration = images[:CALIBRATION]
        network = trained(
            depthwise,
            name="benchmark-depthwise",
            recipe=RECIPE,
            images=images[:TRAINED_ON],
            labels=labels[:TRAINED_ON],
        )
        assert isinstance(network, nn.Sequential)
        network = rescaled(network, deviation=RESCALING)
        self.files = {name: folder / name for name in ("images", "weights", "model")}
        with self.files["images"].open("wb") as file:
            np.savez(file, images=as_bytes(self.population), labels=self.labels, calibration=as_bytes(self.calibration))
        save_file(dict(network.state_dict()), self.files["weights"])
        export_onnx(network, {"images": self.calibration[:8]}, self.files["model"])
        self.baseline = self.rights(self.files["model"])

    def rights(self, model: Path | bytes) -> Rights:
        return np.asarray(run_logits(model, batches(self.population)).argmax(axis=1) == self.labels)

    def candidates(self) -> list[Candidate]:
        """Return our candidates from least to most aggressive; labels and validation images are not looked at."""
        graph = Graph.load(self.files["model"])
        calibration = batches(self.calibration, 100)
        ranges = observe(graph, calibration, sorted({layer.input for layer in graph.layers}), MinMax)
        sizes = {layer.name: int(np.prod(layer.shape)) for layer in graph.layers}

        def quantized(names: Sequence[str], bits: int) -> bytes:
            layers = [layer for layer in graph.layers if layer.name in names]
            weights = {
                layer.name: quantize_tensor(
                    np.asarray(graph.constant(layer.weight), np.float32), Scheme(bits=bits, axis=layer.output_axis)
                )
                for layer in layers
            }
            activations = {layer.input: grid_of_range(*ranges[layer.input], ACTIVATIONS) for layer in layers}
            return write_qdq(graph, weights=weights, activations=activations, only_products=True)

        expected = run_logits(self.files["model"], calibration)
        errors = {
            name: float(np.square(run_logits(quantized([name], 8), calibration) - expected).mean()) for name in sizes
        }
        order = sorted(sizes, key=lambda name: errors[name])
        found = []
        for kept, bits in LADDER:
            names = order[: len(order) - kept]
            stored = sum(size * (bits / 8 if name in names else 4) for name, size in sizes.items())
            name = f"{bits} bits" + (f", {kept} layers fp32" if kept else "")
            found.append(Candidate(name=name, right=self.rights(quantized(names, bits)), weight_bytes=stored))
        return found

    def fp32_bytes(self) -> float:
        return float(sum(4 * np.prod(layer.shape) for layer in Graph.load(self.files["model"]).layers))

    def ask(self, peer: str, module: str, seeds: Sequence[int]) -> Arrays:
        job = {
            "seeds": list(seeds),
            "size": VALIDATION,
            "max_drop": MAX_DROP,
            "most_evaluations": MOST_EVALUATIONS,
        }
        answer = ask(peer, module, job, files=self.files, limit_seconds=LIMIT_SECONDS)
        log(f"{peer}: searches {seeds[0]} to {seeds[-1]}" if seeds else f"{peer}: candidates recorded")
        return answer

    def rows(self, seed: int) -> Any:
        return validation_rows(seed, population=len(self.labels), size=VALIDATION)


def as_bytes(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.rint(images * 255).astype(np.uint8)


def our_searches(bench: Bench, seeds: Sequence[int]) -> list[Choice]:
    candidates, found = bench.candidates(), []
    for one in candidates:
        log(f"ours: {one.name}: true drop {100 * (bench.baseline.mean() - one.right.mean()):.2f} points")
    fp32 = Candidate(name="fp32", right=bench.baseline, weight_bytes=bench.fp32_bytes())
    for seed in seeds:
        rows = bench.rows(seed)
        number, tested = fixed_sequence(bench.baseline[rows], [one.right[rows] for one in candidates])
        chosen = fp32 if number is None else candidates[number]
        found.append(Choice(right=chosen.right, weight_bytes=chosen.weight_bytes, evaluations=tested + 1))
    return found


def shards_of(seeds: Sequence[int]) -> list[Sequence[int]]:
    """Return the seeds in jobs of SHARD, so that a killed run resumes."""
    return [seeds[start : start + SHARD] for start in range(0, len(seeds), SHARD)]


def nncf_searches(bench: Bench, seeds: Sequence[int], pool: ThreadPoolExecutor) -> list[Choice]:
    shards = list(pool.map(lambda shard: bench.ask("openvino", "nncf", shard), shards_of(seeds)))
    return [
        Choice(right=right, weight_bytes=float(size), evaluations=int(evaluations))
        for answer in shards
        for right, size, evaluations in zip(answer["right"], answer["weight_bytes"], answer["evaluations"], strict=True)
    ]


def replayed(bench: Bench, recorded: Arrays, seed: int) -> Choice:
    """Return what Neural Compressor's rule chooses, from recorded answers."""
    rows = bench.rows(seed)
    trials = [float(right[rows].mean()) for right in recorded["right"]]
    number, made = rule(float(bench.baseline[rows].mean()), trials, max_drop=MAX_DROP)
    size = float(recorded["weight_bytes"][number])
    return Choice(right=recorded["right"][number], weight_bytes=size, evaluations=made + 1)


def neural_compressor_searches(
    bench: Bench, seeds: Sequence[int], *, n_real: int, pool: ThreadPoolExecutor
) -> tuple[list[Choice], float]:
    """Return replayed choices for all seeds and the share of the real runs, the first ones, that chose the same."""
    recorded = bench.ask("neural-compressor", "neural_compressor", [])
    choices = [replayed(bench, recorded, seed) for seed in seeds]
    shards = shards_of(seeds[:n_real])
    real = list(pool.map(lambda shard: bench.ask("neural-compressor", "neural_compressor", shard), shards))
    rights = np.concatenate([answer["right"] for answer in real])
    same = [bool(np.array_equal(right, one.right)) for right, one in zip(rights, choices, strict=False)]
    return choices, float(np.mean(same))


def summary(bench: Bench, choices: Sequence[Choice], seeds: Sequence[int]) -> dict[str, float]:
    """Return the violation rate with its exact 95 % interval, drops, bytes and budgets of one tool's searches."""
    drops = np.array(
        [true_drop(bench.baseline, one.right, bench.rows(s)) for one, s in zip(choices, seeds, strict=True)]
    )
    violations = int((drops > MAX_DROP).sum())
    interval = clopper_pearson(violations, n=len(drops), level=0.05)
    smaller = [bench.fp32_bytes() / one.weight_bytes for one in choices]
    return {
        "violation_rate": violations / len(drops),
        "violation_rate_low": interval.low,
        "violation_rate_high": interval.high,
        "worst_true_drop_points": 100 * float(drops.max()),
        "weights_smaller_by": float(np.mean(smaller)),
        "answered_fp32_share": float(np.mean([ratio <= 1 for ratio in smaller])),
        "evaluations_mean": float(np.mean([one.evaluations for one in choices])),
        "evaluations_most": float(max(one.evaluations for one in choices)),
        "searches": float(len(choices)),
    }


def run(quick: bool) -> Result:
    seeds, n_real = (list(range(20)), 10) if quick else (list(range(200)), 40)
    result, found = Result(), {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        bench = Bench(Path(folder))
        found["halve"] = summary(bench, our_searches(bench, seeds), seeds)
        try:
            found["nncf"] = summary(bench, nncf_searches(bench, seeds, pool), seeds)
        except PeerError as error:
            result.peers["nncf"] = {"failed": str(error)}
        try:
            choices, agreement = neural_compressor_searches(bench, seeds, n_real=n_real, pool=pool)
            found["neural-compressor"] = summary(bench, choices, seeds)
            found["neural-compressor"] |= {"real_runs": float(n_real), "replay_agrees_share": agreement}
        except PeerError as error:
            result.peers["neural-compressor"] = {"failed": str(error)}
    result.figures |= found["halve"]
    result.figures["peer_violation_rates"] = {
        tool: one["violation_rate"] for tool, one in found.items() if tool != "halve"
    }
    result.peers |= {tool: one for tool, one in found.items() if tool != "halve"}
    print(table(HEADER, [_row(tool, one) for tool, one in found.items()]))
    for tool, values in result.peers.items():
        if "failed" in values:
            print(f"{tool}: {values['failed']}")
    return result


HEADER = [
    "tool",
    "violations [95 %]",
    "worst true drop",
    "weights smaller by",
    "answered fp32",
    "evaluations",
    "at most",
]


def _row(tool: str, one: dict[str, float]) -> list[object]:
    interval = f"[{one['violation_rate_low']:.3f}, {one['violation_rate_high']:.3f}]"
    return [
        tool,
        f"{one['violation_rate']:.3f} {interval}",
        f"{one['worst_true_drop_points']:.2f}",
        f"{one['weights_smaller_by']:.2f}",
        f"{one['answered_fp32_share']:.3f}",
        f"{one['evaluations_mean']:.1f}",
        f"{one['evaluations_most']:.0f}",
    ]


if __name__ == "__main__":
    main("bounded_search", run, packages=("torch", "onnxruntime"))

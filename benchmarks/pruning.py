"""Pruned to a measured latency and distilled from its parent: accuracy against speed, halve and torch-pruning.

The vision teacher (a residual network averaged over ten views) on Fashion-MNIST, in onnxruntime, one thread, one image
per request. halve prunes by measured layer latencies and reconstructs what is left on 256 images; torch-pruning by one
ratio for all layers (`uniform`) or by one threshold for all (`global`), group magnitude as importance, channels rounded
to 16, the step of this processor, which it would have to be told. Then all are trained alike: `distil` on the same
20,000 training images in the same order, against the parent's ten-view answers, one view per step.

Latency is the median of whole models run in turns. Recipe and chain are chosen on held-out training images; the 10,000
test images are scored once. `drop_points_at_2x`: parent minus ours, of our points at least twice as fast the slowest.
`chain_speedup_at_1_point`: prune, distil, then static INT8; of the points that lose at most 1 point on held-out images
the fastest. `minus_torch_pruning_points_at_equal_latency`: our accuracy at that 2x point minus torch-pruning's better
curve, linear between its points, of which the parent is one, at our latency. Intervals are 95 %, paired by image.
`sparsity_speedup_...`: dense seconds over seconds with zeros in the weight of one product; 1 is no gain.
"""

import functools
import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._common import ROOT, Estimate, Result, interleaved, main, median_interval, table
from halve.demo.training import augmented, computed_once
from halve.techniques.compression.distillation import Recipe, distil
from halve.techniques.compression.pruning import (
    RebuildSpecification,
    measure_sparsity_speed,
    prune,
    rebuild,
    reconstruct,
)
from halve.techniques.compression.quantization import export_onnx, gather_probe, quantize_static
from halve.techniques.compression.quantization.runtime import open_session

sys.path.insert(0, str(ROOT / "examples"))
import vision

ROOMS = ("pruning", "distillation")
TRAINED_ROWS, QUICK_ROWS, CALIBRATION_ROWS = 20_000, 4_000, 256
RECIPE = Recipe(
    epochs=4, learning_rate=0.1, batch_size=125, optimizer="sgd", weight_decay=5e-4, temperature=2.0, alpha=0.7,
    gradient_norm=5.0, warm_up_share=0.1,
)  # fmt: skip
TARGETS, QUICK_TARGETS = (0.5, 0.35, 0.25), (0.5,)
"""Measured latency over the parent's."""

AIMED = 0.97
"""Plans aim a little below a target, so that a model measured again is still within it."""

PEER_RATIOS, QUICK_PEER_RATIOS = {"uniform": (0.25, 0.4, 0.5), "global": (0.25, 0.4, 0.5)}, {"uniform": (0.35,)}
"""Of channels. Chosen so that latencies surround those of our points."""

PEER_STEP = 16
AT_ONCE = 2

Array = np.ndarray[Any, Any]
Rights = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Point:
    """A network that is pruned: by whom and how far."""

    tool: str
    ratio: float

    @property
    def name(self) -> str:
        return f"{self.tool} {self.ratio:g}"


def code_hash() -> str:
    """Return a hash of everything that a trained network depends on: this file, the rooms, the example."""
    digest = hashlib.sha256()
    folders = [ROOT / "src/halve/techniques/compression" / room for room in ROOMS]
    files = [Path(__file__), ROOT / "examples/vision.py", ROOT / "src/halve/demo/networks.py"]
    for path in [*files, *(path for folder in folders for path in sorted(folder.rglob("*.py")))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def targets(rows: int) -> Array:
    """Return the parent's log-probabilities of the first training images, float32 (rows, classes)."""
    parent, (images, _) = vision.teacher(), vision.training_set()

    def compute() -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            parts = [parent(part).log_softmax(1) for part in torch.from_numpy(images[:rows]).split(100)]
        return {"answers": torch.cat(parts)}

    weights = {name: value.numpy() for name, value in parent.state_dict().items()}
    found = computed_once("pruning-targets", recipe={"rows": rows}, data=weights, compute=compute)
    return found["answers"].numpy()


def calibration() -> dict[str, Array]:
    """Return training images that are not trained on, to score and calibrate with."""
    images, _ = vision.training_set()
    return {"images": images[TRAINED_ROWS : TRAINED_ROWS + CALIBRATION_ROWS]}


def pruned(point: Point) -> nn.Module:
    """Return the network, pruned and not yet trained. Ours is planned once per version of the code and kept."""
    parent = vision.teacher()
    if point.tool != "halve":
        return torch_pruned(parent, point)

    def compute() -> dict[str, torch.Tensor]:
        found = prune(parent, calibration(), target_latency_ratio=point.ratio * AIMED)
        reconstruct(found.module, parent, found.specification, calibration())
        document = np.frombuffer(found.specification.to_json().encode(), np.uint8).copy()
        return {"specification": torch.from_numpy(document), **found.module.state_dict()}

    kept = computed_once("pruning-plan", recipe={**asdict(point), "code": code_hash()}, data={}, compute=compute)
    document = kept.pop("specification").numpy().tobytes().decode()
    network = rebuild(parent, RebuildSpecification.from_json(document))
    network.load_state_dict(kept)
    return network.eval()


def torch_pruned(parent: nn.Module, point: Point) -> nn.Module:
    import torch_pruning

    head = next(layer for layer in parent.modules() if isinstance(layer, nn.Linear))
    images = torch.from_numpy(calibration()["images"][:2])
    pruner = torch_pruning.pruner.BasePruner(
        parent,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=point.tool == "torch-pruning global",
        pruning_ratio=point.ratio,
        max_pruning_ratio=0.9,
        ignored_layers=[head],
        round_to=PEER_STEP,
    )
    pruner.step()
    return parent.eval()


def change(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Move each image by up to a pixel and mirror half of them, as the parent was trained."""
    return {name: augmented(images, shift_pixels=1, flip=True) for name, images in batch.items()}


def recover(point: Point, rows: int) -> None:
    """Train the network; its weights are in the cache afterwards."""
    torch.set_num_threads(1)
    trained(point, rows)


def trained(point: Point, rows: int) -> nn.Module:
    """Return the network after recovery, the same for every tool."""
    network, answers = pruned(point), targets(rows)
    images, labels = vision.training_set()

    def compute() -> dict[str, torch.Tensor]:
        distil(network, {"images": images[:rows]}, answers, recipe=RECIPE, labels=labels[:rows], augment=change)
        return dict(network.state_dict())

    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    identity = {**asdict(point), "rows": rows, "shapes": shapes, "recipe": asdict(RECIPE), "code": code_hash()}
    network.load_state_dict(computed_once("pruning-trained", recipe=identity, data={}, compute=compute))
    return network.eval()


def answers(content: bytes, images: Array) -> Array:
    """Return the classes that a file answers, in the runtime that serves it."""
    session = open_session(content)
    feeds = [images[start : start + 100] for start in range(0, len(images), 100)]
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: feed})[0].argmax(1) for feed in feeds])


def scored(content: bytes, held_out: int, tested: int) -> tuple[Rights, Rights]:
    """Return which held-out and which test images are answered rightly."""
    images, labels = vision.examples()
    middle = len(images) // 2
    chosen = [slice(0, held_out), slice(middle, middle + tested)]
    held, test = (answers(content, images[part]) == labels[part] for part in chosen)
    return held, test


def in_integers(content: bytes, folder: Path) -> bytes:
    """Return the model in static INT8, calibrated on training images."""
    source, out = folder / "fp32.onnx", folder / "int8.onnx"
    source.write_bytes(content)
    quantize_static(source, out, calibration=[calibration()], weight_bits=gather_probe().weight_bits.bits)
    return out.read_bytes()


def difference(better: Rights, worse: Rights) -> Estimate:
    """Return the mean of better - worse in points, with its 95 % interval paired by image."""
    points = 100 * (better.astype(float) - worse.astype(float))
    error = float(points.std(ddof=1) / np.sqrt(len(points)))
    mean = float(points.mean())
    return Estimate(median=mean, low=mean - 1.96 * error, high=mean + 1.96 * error)


def at_latency(curve: Sequence[tuple[float, float]], latency: float) -> float | None:
    """Return accuracy on a curve of (latency, accuracy), linear between points; None outside its range."""
    ordered = sorted(curve)
    if not ordered or not ordered[0][0] <= latency <= ordered[-1][0]:
        return None
    return float(np.interp(latency, *zip(*ordered, strict=True)))


def seconds_of(files: Mapping[str, bytes], *, rounds: int) -> dict[str, Array]:
    """Return seconds of one call on one image of each file, by round, all in turns."""
    image = calibration()["images"][:1]
    calls: dict[str, Callable[[], object]] = {}
    for name, content in files.items():
        session = open_session(content)
        calls[name] = functools.partial(session.run, None, {session.get_inputs()[0].name: image})
    return interleaved(calls, rounds=rounds, warm_up=3)


def run(quick: bool) -> Result:
    torch.set_num_threads(1)
    rows = QUICK_ROWS if quick else TRAINED_ROWS
    held_out, tested = (1_000, 2_000) if quick else (5_000, 10_000)
    peers = QUICK_PEER_RATIOS if quick else PEER_RATIOS
    ours = [Point("halve", ratio) for ratio in (QUICK_TARGETS if quick else TARGETS)]
    theirs = [Point(f"torch-pruning {kind}", ratio) for kind, ratios in peers.items() for ratio in ratios]
    targets(rows)
    for point in ours:  # Timed, so before anything runs beside it.
        pruned(point)
        log(f"planned {point.name}")
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
        for point, job in [(point, pool.submit(recover, point, rows)) for point in [*ours, *theirs]]:
            job.result()
            log(f"trained {point.name}")
        files = written(ours, theirs, rows)
        jobs = {name: pool.submit(scored, content, held_out, tested) for name, content in files.items()}
        rights = {name: job.result() for name, job in jobs.items()}
    seconds = seconds_of(files, rounds=30 if quick else 150)
    print(table(["network", "ms", "speed-up", "test accuracy", "drop [95 %]"], _rows(seconds, rights)))
    return summary(seconds, rights, ours=[point.name for point in ours], theirs=[point.name for point in theirs])


def written(ours: Sequence[Point], theirs: Sequence[Point], rows: int) -> dict[str, bytes]:
    """Return every network as an ONNX file, ours and the parent in INT8 too."""
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        for name, network in [("parent", vision.teacher()), *((p.name, trained(p, rows)) for p in [*ours, *theirs])]:
            export_onnx(network, {name: array[:2] for name, array in calibration().items()}, path)
            files[name] = path.read_bytes()
        for name in ["parent", *(point.name for point in ours)]:
            files[f"{name} int8"] = in_integers(files[name], Path(scratch))
    return files


def speedup(seconds: Mapping[str, Array], name: str) -> Estimate:
    """Return how many times faster than the parent, by round."""
    return median_interval(seconds["parent"] / seconds[name])


def _rows(seconds: Mapping[str, Array], rights: Mapping[str, tuple[Rights, Rights]]) -> list[list[object]]:
    return [
        [
            name,
            f"{1000 * np.median(seconds[name]):.2f}",
            speedup(seconds, name),
            f"{100 * rights[name][1].mean():.2f}",
            difference(rights["parent"][1], rights[name][1]),
        ]
        for name in seconds
    ]


def summary(
    seconds: Mapping[str, Array],
    rights: Mapping[str, tuple[Rights, Rights]],
    *,
    ours: Sequence[str],
    theirs: Sequence[str],
) -> Result:
    """Return the figures of the issue, each step of the chain alone, and the honest sparsity numbers."""
    result = Result()
    figures, parent = result.figures, rights["parent"]
    speed = {name: speedup(seconds, name) for name in seconds}
    figures["parent_accuracy"] = float(parent[1].mean())
    # Of our points at least twice as fast the slowest: the one that was asked for 2x.
    fast = [name for name in ours if speed[name].median >= 2]
    at_2x = min(fast, key=lambda name: speed[name].median) if fast else max(ours, key=lambda name: speed[name].median)
    figures["speedup_at_2x"] = speed[at_2x]
    figures["drop_points_at_2x"] = difference(parent[1], rights[at_2x][1])
    chain = [f"{name} int8" for name in ours]
    kept = [name for name in chain if 100 * (parent[0].mean() - rights[name][0].mean()) <= 1]
    chosen = max(kept or chain, key=lambda name: speed[name].median)
    figures["chain_speedup_at_1_point"] = speed[chosen] if kept else 1.0
    figures["chain_drop_points"] = difference(parent[1], rights[chosen][1])
    figures["chain_chosen"] = chosen
    figures["int8_alone_speedup"] = speed["parent int8"]
    figures["int8_alone_drop_points"] = difference(parent[1], rights["parent int8"][1])
    latency = {name: float(np.median(seconds[name])) for name in seconds}
    place = {name: (latency[name], float(rights[name][1].mean())) for name in ("parent", *theirs)}
    curves = {  # each begins at the parent: nothing taken away
        kind: [place["parent"], *(place[name] for name in theirs if name.startswith(kind))]
        for kind in sorted({name.rpartition(" ")[0] for name in theirs})
    }
    found = [accuracy for curve in curves.values() if (accuracy := at_latency(curve, latency[at_2x])) is not None]
    if found:
        figures["minus_torch_pruning_points_at_equal_latency"] = 100 * (rights[at_2x][1].mean() - max(found))
    for name in [*ours, *chain]:
        figures[f"{name} speedup"], figures[f"{name} drop_points"] = speed[name], difference(parent[1], rights[name][1])
    result.peers = {
        name: {"speedup": speed[name], "drop_points": difference(parent[1], rights[name][1])} for name in theirs
    }
    zeros = measure_sparsity_speed()
    figures |= {f"sparsity_speedup_{kind}": value for kind, value in zeros.speedups.items()}
    return result


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main("pruning", run, packages=("torch", "torch-pruning", "onnxruntime"))

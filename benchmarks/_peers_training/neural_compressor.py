"""Neural Compressor: `autotune` over its own default set of static INT8 configurations, and two with layers in fp32.

Its tolerable loss is relative; it is told 1 point over the accuracy of the fp32 model on the same validation set.
`rule` is its stopping rule on recorded answers, which the benchmark compares with the real runs.
"""

from typing import Any

import numpy as np
import torch

from benchmarks._peers_training.network import depthwise, load_weights
from benchmarks._peers_training.searching import Search, read_search

ROWS = 500


def rule(baseline: float, trials: list[float], *, max_drop: float) -> tuple[int, int]:
    """Return the number of the chosen trial and how many were made: the first within the loss, else the best of all."""
    for number, accuracy in enumerate(trials):
        if accuracy >= baseline * (1 - max_drop / baseline):
            return number, number + 1
    return int(np.argmax(trials)), len(trials)


def configurations(network: torch.nn.Module) -> list[Any]:
    from neural_compressor.torch.quantization import StaticQuantConfig

    convolutions = {name: part for name, part in network.named_modules() if isinstance(part, torch.nn.Conv2d)}
    kept = {"depthwise": [name for name, part in convolutions.items() if part.groups > 1]}
    kept["depthwise and first"] = [next(iter(convolutions)), *kept["depthwise"]]
    found = [
        StaticQuantConfig(act_sym=symmetric, act_algo=algorithm)
        for symmetric in (True, False)
        for algorithm in ("kl", "minmax")
    ]
    for names in kept.values():
        config = StaticQuantConfig()
        config.set_local(names, StaticQuantConfig(w_dtype="fp32", act_dtype="fp32"))
        found.append(config)
    return found


def rights(program: Any, images: torch.Tensor, labels: torch.Tensor) -> Any:
    with torch.no_grad():
        return (torch.cat([program(part).argmax(1) for part in images.split(ROWS)]) == labels).numpy()


def weight_bytes(network: torch.nn.Module, kept: list[str]) -> float:
    products = {
        name: part for name, part in network.named_modules() if hasattr(part, "weight") and part.weight.ndim > 1
    }
    return float(sum(part.weight.numel() * (4 if name in kept else 1) for name, part in products.items()))


def exported(network: torch.nn.Module, images: torch.Tensor) -> Any:
    from neural_compressor.torch.export import export

    rows = torch.export.Dim("rows", min=2, max=4096)
    return export(network, (images[:2],), dynamic_shapes=({0: rows},))


def main() -> None:
    from neural_compressor.torch.quantization import TuningConfig, autotune, quantize

    torch.set_num_threads(1)
    data: Search = read_search()
    network = load_weights(depthwise(), data.files["weights"])
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    calibration = torch.from_numpy(data.calibration)

    def calibrate(program: Any) -> None:
        with torch.no_grad():
            for part in calibration.split(50):
                program(part)

    configs = configurations(network)[: data.job["most_evaluations"] - 1]
    if not data.job["seeds"]:
        programs = [quantize(exported(network, images), config, run_fn=calibrate) for config in configs]
        sizes = [weight_bytes(network, list(config.local_config)) for config in configs]
        recorded = [
            {"right": rights(p, images, labels), "weight_bytes": size} for p, size in zip(programs, sizes, strict=True)
        ]
        data.answer(recorded)
        return
    baseline = rights(network, images, labels)
    found = []
    for rows in data.resamples():
        evaluated: list[float] = []

        def evaluate(program: Any, rows: Any = rows, evaluated: list[float] = evaluated) -> float:
            evaluated.append(float(rights(program, images[rows], labels[rows]).mean()))
            return evaluated[-1]

        tuning = TuningConfig(
            config_set=configurations(network)[: len(configs)],
            tolerable_loss=data.job["max_drop"] / float(baseline[rows].mean()),
            max_trials=len(configs),
        )
        chosen = autotune(exported(network, images), tuning, eval_fn=evaluate, run_fn=calibrate)
        found.append({"right": rights(chosen, images, labels), "evaluations": len(evaluated)})
    data.answer(found)


if __name__ == "__main__":
    main()

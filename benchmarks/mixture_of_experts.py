"""A sentence encoder's feed-forwards as experts: what it costs in accuracy, and what it saves on the clock.

The intents teacher (all-MiniLM-L6-v2 and a linear head) on CLINC150. All six feed-forwards are converted so that a
token goes through half of their operations or less, router included, and the copy learns for one epoch from the dense
parent: its logits and its sentence vectors on the 15,000 training queries, and the labels. Sizes were chosen among five
by the validation queries before recovery and by the clock; the recipe of recovery is the first that was tried. Nothing
was chosen on the test queries. Beside it, with the same recovery: routers that stay as they were fitted, and half of
the neurons cut off for good, which is what experts have to beat. `distil` has no room for the routers' own losses, so
recovery is a loop of its own here.

Timed in onnxruntime, one thread, dense and converted in turns: `drop_points_at_half_flops` is dense minus converted on
the test queries in points, over seeds, its interval paired by query; `wall_clock_ratio` is converted over dense
seconds, the better of batch 1 and batch 32. Single feed-forwards of three widths show from how many tokens on it pays.
"""

import copy
import hashlib
import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._common import ROOT, Estimate, Result, interleaved, main, median_interval, table
from halve.demo.training import computed_once
from halve.techniques.compression import mixture_of_experts as experts_room
from halve.techniques.compression.distillation import distillation_loss
from halve.techniques.compression.mixture_of_experts import (
    Converted,
    MixtureConfig,
    account,
    auxiliary_losses,
    convert,
    feed_forwards,
    mixtures,
)
from halve.techniques.compression.mixture_of_experts.find import put
from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts
from halve.techniques.compression.quantization import export_onnx
from halve.techniques.compression.quantization.runtime import open_session

sys.path.insert(0, str(ROOT / "examples"))
import intents

EXPERTS, ACTIVE, SHARED_SHARE = 8, 2, 0.328
"""504 of 1,536 neurons are shared, each expert has 129: 504 + 2 * 129 = 762, and the router is worth 4."""

CALIBRATION_QUERIES = 1_000
TIMED_BATCHES = (1, 32)
SWEEP = {"384": (384, 1536), "768": (768, 3072), "1024": (1024, 4096)}
SWEEP_TOKENS = (1, 8, 32, 128, 512, 2048)

Array = np.ndarray[Any, Any]
Rights = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How a converted copy learns from its parent: AdamW under one cycle, batches of queries of like length."""

    epochs: int = 1
    learning_rate: float = 1e-4
    batch_size: int = 64
    temperature: float = 2.0
    alpha: float = 0.9
    vector_weight: float = 5.0
    trains_router: bool = True
    rows: int = 15_000
    seed: int = 0


class Data:
    """Word pieces and labels of all three sets, and what the parent answers to the training queries."""

    def __init__(self) -> None:
        self.parent = intents.teacher()
        self.train, self.train_labels = intents.training_set()
        self.vectors = intents.training_embeddings()
        with torch.no_grad():
            self.logits = self.parent.head(self.vectors)
        texts, self.test_labels = intents.examples()
        self.test = torch.from_numpy(intents.token_ids(texts))

    def calibration(self) -> dict[str, Array]:
        chosen = np.random.default_rng(0).permutation(len(self.train))[:CALIBRATION_QUERIES]
        return named(self.train[chosen])

    def rights(self, module: nn.Module) -> Rights:
        """Return which test queries a module answers rightly, bool (queries,)."""
        answers = np.empty(len(self.test), dtype=np.int64)
        with torch.inference_mode():
            for batch in torch.argsort(lengths(self.test), stable=True).split(100):
                answers[batch.numpy()] = module(*map(torch.from_numpy, named(self.test[batch]).values())).argmax(1)
        return np.asarray(answers == self.test_labels)


def lengths(ids: torch.Tensor) -> torch.Tensor:
    return (ids != 0).sum(dim=1)


def named(ids: torch.Tensor) -> dict[str, Array]:
    """Return the inputs of the network, cut to the longest query."""
    cut = ids[:, : int(lengths(ids).max())].numpy()
    return {"input_ids": cut, "attention_mask": (cut != 0).astype(np.int64)}


def batches(ids: torch.Tensor, recovery: Recovery, epoch: int) -> list[torch.Tensor]:
    """Return the rows of each step: sorted by length within runs of 16 batches, so that little is padding."""
    generator = torch.Generator().manual_seed(1000 * recovery.seed + epoch)
    size = recovery.batch_size
    found: list[torch.Tensor] = []
    for run in torch.randperm(len(ids), generator=generator)[: recovery.rows].split(16 * size):
        found += run[torch.argsort(lengths(ids[run]), stable=True)].split(size)
    return [found[number] for number in torch.randperm(len(found), generator=generator)]


def recover(student: Any, data: Data, recovery: Recovery) -> None:
    """Train a converted (or cut) copy in place on what its parent answers."""
    torch.manual_seed(recovery.seed)
    student.encoder.bert.embeddings.requires_grad_(False)
    for layer in mixtures(student).values():
        layer.router.requires_grad_(recovery.trains_router)
    steps = [batch for epoch in range(recovery.epochs) for batch in batches(data.train, recovery, epoch)]
    learned = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=recovery.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recovery.learning_rate, total_steps=len(steps), pct_start=0.1
    )
    # In evaluation mode there is no dropout; mixtures learn in either mode.
    student.eval()
    for rows in steps:
        vectors = student.encoder(*map(torch.from_numpy, named(data.train[rows]).values()))
        loss = distillation_loss(
            student.head(vectors),
            data.logits[rows],
            data.train_labels[rows],
            temperature=recovery.temperature,
            alpha=recovery.alpha,
        )
        loss = loss + recovery.vector_weight * (vectors - data.vectors[rows]).square().sum(dim=1).mean()
        if mixtures(student):
            loss = loss + auxiliary_losses(student)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def code_hash() -> str:
    """Return a hash of the technique's code and of what trains here."""
    files = sorted(Path(str(experts_room.__file__)).parent.glob("*.py"))
    parts = [path.read_bytes() for path in files] + [inspect.getsource(part).encode() for part in (recover, batches)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def learned(data: Data, module: nn.Module, recovery: Recovery, name: str) -> nn.Module:
    """Train the module by the recipe, or read what that gave before."""

    def compute() -> dict[str, torch.Tensor]:
        log(f"{name}: learning, seed {recovery.seed}")
        recover(module, data, recovery)
        return dict(module.state_dict())

    start = {key: value.numpy() for key, value in module.state_dict().items()}
    recipe = {"code": code_hash(), "name": name, **asdict(recovery)}
    # Embeddings and the parent's answers follow from the start weights and the data of the intents example.
    module.load_state_dict(computed_once(f"benchmark-{name}", recipe=recipe, data=start, compute=compute))
    return module.eval()


def half_width(data: Data) -> nn.Module:
    """Return the parent with half of each feed-forward's neurons, those that matter most, and the mean of the rest."""
    inputs = data.calibration()
    shared = mixtures(convert(data.parent, inputs, experts=2, active=1, shared_neurons_share=0.5).module)
    module = copy.deepcopy(data.parent)
    for place in feed_forwards(module):
        layer = shared[place.name]
        narrow = nn.Sequential(layer.shared_first, nn.GELU(), nn.Linear(layer.config.shared_neurons, place.outputs))
        read, wrote = insides(data.parent, inputs, (place.name, place.second))
        with torch.no_grad():
            narrow[2].weight.copy_(layer.shared_second.weight)
            narrow[2].bias.zero_()
            narrow[2].bias.copy_((wrote - narrow(read)).mean(dim=0))
        put(module, place, narrow)
    return module.eval()


def insides(
    parent: nn.Module, inputs: Mapping[str, Array], names: tuple[str, str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the first layer reads and the second writes on real tokens, (tokens, features) each."""
    seen: list[torch.Tensor] = []
    first, second = map(parent.get_submodule, names)
    hooks = [
        first.register_forward_hook(lambda _, arguments, __: seen.append(arguments[0])),
        second.register_forward_hook(lambda _, __, output: seen.append(output)),
    ]
    with torch.no_grad():
        parent(*map(torch.from_numpy, inputs.values()))
    for hook in hooks:
        hook.remove()
    real = torch.from_numpy(inputs["attention_mask"]) != 0
    return seen[0][real], seen[1][real]


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def session_of(module: nn.Module, inputs: Mapping[str, Array], path: Path) -> Any:
    export_onnx(module, inputs, path)
    return open_session(path)


def whole_model_ratios(modules: Mapping[str, nn.Module], data: Data, *, rounds: int) -> dict[str, dict[str, Estimate]]:
    """Return seconds over the dense parent's by batch size and network, each round another batch of test queries."""
    found: dict[str, dict[str, Estimate]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sample = named(data.test[:8])
        sessions = {
            name: session_of(module, sample, Path(folder) / f"{number}.onnx")
            for number, (name, module) in enumerate(modules.items())
        }
        order = np.random.default_rng(0).permutation(len(data.test))
        for size in TIMED_BATCHES:
            feeds = [named(data.test[order[start : start + size]]) for start in range(0, size * 8, size)]

            def answer(session: Any, feeds: Sequence[Mapping[str, Any]] = feeds) -> Callable[[], object]:
                return lambda: [session.run(None, dict(feed)) for feed in feeds]

            seconds = interleaved({name: answer(session) for name, session in sessions.items()}, rounds=rounds)
            found[str(size)] = {
                name: median_interval(values / seconds["dense"]) for name, values in seconds.items() if name != "dense"
            }
            found[str(size)]["dense_seconds"] = median_interval(seconds["dense"] / len(feeds))
    return found


class Alone(nn.Module):
    """One feed-forward as a network: int64 (batch, tokens) -> (batch, outputs) of embedded tokens."""

    def __init__(self, width: int, feed_forward: nn.Module) -> None:
        super().__init__()
        self.embedding, self.feed_forward = nn.Embedding(512, width), feed_forward

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.feed_forward(self.embedding(input_ids)).mean(dim=1)


def sweep(*, rounds: int, widths: Sequence[str]) -> dict[str, float]:
    """Return seconds of a mixture over those of the dense layer, by width and tokens, weights and router at random."""
    found: dict[str, float] = {}
    for label in widths:
        width, neurons = SWEEP[label]
        torch.manual_seed(0)
        dense = nn.Sequential(nn.Linear(width, neurons), nn.GELU(), nn.Linear(neurons, width))
        routed = int(neurons * (1 - SHARED_SHARE)) // EXPERTS * EXPERTS
        mixture = MixtureOfExperts(
            MixtureConfig(
                inputs=width,
                outputs=width,
                experts=EXPERTS,
                active=ACTIVE,
                neurons=routed // EXPERTS,
                shared_neurons=neurons - routed,
            )
        )
        networks = {"dense": Alone(width, dense).eval(), "mixture": Alone(width, mixture).eval()}
        ids = np.random.default_rng(0).integers(0, 512, (4, 64))
        with tempfile.TemporaryDirectory() as folder:
            sessions = {
                name: session_of(module, {"input_ids": ids}, Path(folder) / f"{name}.onnx")
                for name, module in networks.items()
            }
        for tokens in SWEEP_TOKENS:
            feed = {"input_ids": np.random.default_rng(1).integers(0, 512, (1, tokens))}
            repeats = max(1, 256 // tokens)

            def answer(session: Any, feed: Mapping[str, Any] = feed, repeats: int = repeats) -> Callable[[], object]:
                return lambda: [session.run(None, dict(feed)) for _ in range(repeats)]

            seconds = interleaved({name: answer(session) for name, session in sessions.items()}, rounds=rounds)
            found[f"{label} x {tokens}"] = median_interval(seconds["mixture"] / seconds["dense"]).median
    return found


def drop(dense: Rights, others: Sequence[Rights]) -> Estimate:
    """Return dense minus the mean over seeds in points, with the 95 % interval paired by query (normal)."""
    points = 100 * (dense.astype(float) - np.mean(np.stack(others), axis=0))
    mean, error = float(points.mean()), float(points.std(ddof=1) / np.sqrt(len(points)))
    return Estimate(median=mean, low=mean - 1.96 * error, high=mean + 1.96 * error)


def run(quick: bool) -> Result:
    seeds = (0,) if quick else (0, 1)
    rows = 2_000 if quick else 15_000
    data = Data()
    sizes: dict[str, Any] = {"experts": EXPERTS, "active": ACTIVE, "shared_neurons_share": SHARED_SHARE}
    converted = convert(data.parent, data.calibration(), **sizes)
    log("converted")
    found = account(converted.module, named(data.test[:256]))
    dense, before = data.rights(data.parent), data.rights(converted.module)

    def fresh() -> nn.Module:
        specification = experts_room.specification_of(converted.module)
        module = experts_room.rebuild(data.parent, specification)
        module.load_state_dict(converted.module.state_dict())
        return module

    recovered = [learned(data, fresh(), Recovery(seed=seed, rows=rows), "mixture") for seed in seeds]
    after = [data.rights(module) for module in recovered]
    fixed = data.rights(learned(data, fresh(), Recovery(rows=rows, trains_router=False), "mixture-fixed-router"))
    cut_before = half_width(data)
    cut_rights = data.rights(cut_before)
    cut = learned(data, cut_before, Recovery(rows=rows), "half-width")
    cut_after = data.rights(cut)
    networks = {"dense": data.parent, "mixture": recovered[0], "half-width": cut}
    ratios = whole_model_ratios(networks, data, rounds=15 if quick else 41)
    log("timed")
    curve = sweep(rounds=7 if quick else 15, widths=["384"] if quick else list(SWEEP))
    result = Result()
    better = min(TIMED_BATCHES, key=lambda size: ratios[str(size)]["mixture"].median)
    result.figures = {
        "drop_points_at_half_flops": drop(dense, after),
        "wall_clock_ratio": ratios[str(better)]["mixture"],
        "active_flops_ratio": found.active_flops_ratio,
        "memory_ratio": found.memory_ratio,
        "active_parameters_ratio": found.active_parameters / found.total_parameters,
        "dense_accuracy": float(dense.mean()),
        "drop_points_before_recovery": drop(dense, [before]),
        "drop_points_with_fixed_router": drop(dense, [fixed]),
        "half_width_drop_points_before_recovery": drop(dense, [cut_rights]),
        "half_width_drop_points": drop(dense, [cut_after]),
        "largest_minus_smallest_seed_points": 100 * float(np.ptp([rights.mean() for rights in after])),
        **{f"wall_clock_ratio_batch_{size}": ratios[str(size)]["mixture"] for size in TIMED_BATCHES},
        **{f"half_width_wall_clock_ratio_batch_{size}": ratios[str(size)]["half-width"] for size in TIMED_BATCHES},
        **{f"dense_seconds_batch_{size}": ratios[str(size)]["dense_seconds"] for size in TIMED_BATCHES},
        "feed_forward_alone_ratio": curve,
    }
    report(result, converted, curve)
    return result


def report(result: Result, converted: Converted, curve: Mapping[str, float]) -> None:
    rows = [
        [row.name.removeprefix("encoder.bert.encoder."), row.split, f"{row.relative_error:.3f}"]
        + [f"{100 * share:.1f}" for share in (row.captured_share, row.oracle_share)]
        for row in converted.layers
    ]
    print(table(["feed-forward", "split by", "error", "router catches %", "at most %"], rows), end="\n\n")
    print(table(["figure", "value"], [[k, _text(v)] for k, v in result.figures.items() if not isinstance(v, dict)]))
    widths = sorted({name.split(" x ")[0] for name in curve}, key=int)
    cells = [[w, *(f"{curve[f'{w} x {tokens}']:.2f}" for tokens in SWEEP_TOKENS)] for w in widths]
    print("\nOne feed-forward alone, mixture over dense seconds, by width and tokens")
    print(table(["width", *map(str, SWEEP_TOKENS)], cells))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main("mixture_of_experts", run, packages=("torch", "onnxruntime", "transformers"))

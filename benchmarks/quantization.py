"""Post-training quantization: halve against the tools of the field, on the same weights and the same inputs.

Every tool has a process in an environment of its own; all processes of a model are asked for runs in turns, so that
whatever the machine does falls on all alike. One thread each. Answers are compared with the fp32 model's before
anything is timed: share of changed answers (argmax), relative RMSE of the logits, accuracy where there are labels.

INT8: `dominated_by` lists peers with less error (and no more disagreement) that are faster by their whole interval.
4 bits: weights of linear layers only, in groups of 64; error alone is compared. On `efficientnet` the inputs are
enlarged Fashion-MNIST, so only the distance from fp32 counts. `smollm2-down` was on a 4-bit grid before and is no
part of any figure. Where the host's 8-bit products do not saturate, the ratio to ONNX Runtime's default is taken on
an emulated AVX2 processor without VNNI: errors are exact there, seconds are not.

The first run installs the peers (a few GB in ~/.cache/halve-benchmarks), trains and exports for some minutes more.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import emulation
from benchmarks._common import Result, main, table
from benchmarks._peers.client import Worker
from benchmarks._peers.comparison import (
    Finding,
    disagreement,
    dominating,
    least_error_ratio,
    relative_rmse,
    runs_per_round,
    smoothed_ratio,
    speed_ratio,
)
from benchmarks._peers.environments import REQUIREMENTS, PeerError, python_of
from benchmarks._peers.models import folder_of
from benchmarks._peers.worker import Model
from halve.techniques.compression.quantization import probe_saturation

ROWS = 32
BATCHES = (1, 32)
PATIENCE_SECONDS = 300.0
FP32_TOLERANCE = 1e-3
"""Largest relative RMSE of another runtime's fp32 answers: the weights must be the same."""

ON_A_GRID_BEFORE = ("smollm2-down",)

Methods = dict[str, tuple[str, ...]]

INT8: Methods = {
    "halve": ("fp32", "auto", "static", "dynamic"),
    "onnxruntime": ("default", "per channel", "per channel, reduce range", "dynamic"),
    "openvino": ("fp32", "NNCF", "NNCF, rest in bfloat16"),
    "torchao": ("fp32", "int8 dynamic", "PT2E x86 static"),
    "quanto": ("int8",),
}
INT8_QUICK: Methods = {
    "halve": ("fp32", "auto"),
    "onnxruntime": ("default", "per channel"),
    "openvino": ("fp32", "NNCF"),
}
INT4: Methods = {
    "halve": ("fp32", "int4", "int4 nearest"),
    "onnxruntime": ("int4", "int4 HQQ", "int4 GPTQ"),
    "openvino": ("fp32", "NNCF int4", "NNCF int4 scale estimation", "NNCF int4 GPTQ"),
    "torchao": ("fp32", "int4 weights", "int4 weights, int8 activations"),
    "quanto": ("int4 weights",),
    "auto-round": ("opt-RTN int4",),
}
INT4_QUICK: Methods = {
    "halve": ("fp32", "int4"),
    "onnxruntime": ("int4", "int4 HQQ"),
    "openvino": ("NNCF int4",),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and who quantizes it; `timed` says whether seconds count."""

    model: str
    methods: Methods
    judged: str
    timed: bool = True


EMULATED = (emulation.PROGRAM, "-cpu", emulation.AVX2_WITHOUT_VNNI)
SATURATES = "saturates"
SATURATED = 0.01
"""Relative RMSE between the emulated answers of a file and this host's from which its products saturate."""


def cases(quick: bool) -> list[Case]:
    if quick:
        return [
            Case(model="fashion", methods=INT8_QUICK, judged="auto"),
            Case(model="minilm", methods=INT4_QUICK, judged="int4", timed=False),
        ]
    return [
        *(Case(model=name, methods=INT8, judged="auto") for name in ("fashion", "minilm", "efficientnet")),
        Case(model="minilm", methods=INT4, judged="int4"),
        *(Case(model=name, methods=INT4, judged="int4", timed=False) for name in ("smollm2-head", "smollm2-down")),
    ]


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def start(tool: str, stack: ExitStack, *, prefix: Sequence[str] = ()) -> Worker:
    python = Path(sys.executable) if tool == "halve" else python_of(tool, log=log)
    module = "ours" if tool == "halve" else tool.replace("-", "_")
    return stack.enter_context(Worker(python=python, module=module, prefix=prefix))


def examine(case: Case, folder: Path, *, quick: bool) -> list[Finding]:
    """Build, check and time every method on one model; halve's fp32 comes first.

    Raises:
        PeerError: If there are no fp32 answers to compare with.
    """
    findings = [
        Finding(tool=tool, method=method, model=case.model)
        for tool, methods in case.methods.items()
        for method in methods
    ]
    workers: dict[str, Worker] = {}
    unusable: dict[str, str] = {}
    fp32: np.ndarray | None = None
    with ExitStack() as stack:
        for finding in findings:
            log(f"{case.model}: {finding.name}")
            try:
                logits = build(worker_of(finding.tool, workers, unusable, stack), finding, folder)
                fp32 = logits if fp32 is None else fp32
                judge(finding, logits, fp32=fp32, folder=folder)
            except PeerError as error:
                if fp32 is None:
                    raise
                finding.problem = str(error)
                log(f"    {finding.problem}")
        if case.timed:
            take_times([finding for finding in findings if not finding.problem], workers, quick=quick)
    return findings


def worker_of(tool: str, workers: dict[str, Worker], unusable: dict[str, str], stack: ExitStack) -> Worker:
    """Return the tool's process, started on first use.

    Raises:
        PeerError: If it cannot be installed; tried once.
    """
    if tool in unusable:
        raise PeerError(unusable[tool])
    if tool not in workers:
        try:
            workers[tool] = start(tool, stack)
        except PeerError as error:
            unusable[tool] = str(error)
            raise
    return workers[tool]


def build(worker: Worker, finding: Finding, folder: Path) -> np.ndarray:
    """Return the logits of the evaluation inputs; the finding gets size, seconds and note."""
    made = worker.ask("build", timeout_seconds=PATIENCE_SECONDS, model=str(folder), method=finding.method)
    finding.seconds_to_quantize, finding.size_bytes = made["seconds"], made["size_bytes"]
    finding.note = made["note"]
    if made["sha256"] != Model(folder).digests():
        raise PeerError("it read other weights or inputs than the others did")
    inputs = folder / "evaluation.npz"
    with tempfile.TemporaryDirectory() as scratch:
        to = Path(scratch, "logits.npy")
        worker.ask(
            "answer",
            timeout_seconds=PATIENCE_SECONDS,
            method=finding.method,
            inputs=str(inputs),
            rows=ROWS,
            to=str(to),
        )
        return np.load(to)


def judge(finding: Finding, logits: np.ndarray, *, fp32: np.ndarray, folder: Path) -> None:
    """Compare with fp32, before anything is timed.

    Raises:
        PeerError: If the answers are of another shape, not finite, or fp32 in name only.
    """
    if logits.shape != fp32.shape or not np.isfinite(logits).all():
        raise PeerError(
            f"its answers have shape {logits.shape} and are {'' if np.isfinite(logits).all() else 'not '}finite"
        )
    finding.rows = len(logits)
    finding.disagreement = disagreement(logits, fp32=fp32)
    finding.relative_rmse = relative_rmse(logits, fp32=fp32)
    labels = folder / "labels.npy"
    if labels.is_file():
        finding.accuracy = float(np.mean(logits.argmax(axis=1) == np.load(labels)))
    if finding.is_fp32 and finding.relative_rmse > FP32_TOLERANCE:
        raise PeerError(f"its fp32 answers differ from onnxruntime's by {finding.relative_rmse:.2g}")


def take_times(findings: list[Finding], workers: dict[str, Worker], *, quick: bool) -> None:
    """Ask all methods for runs in turns, each round starting with another one; a method that fails is left out."""
    rounds, seconds = (5, 0.05) if quick else (11, 0.15)
    for batch in BATCHES:
        first: dict[str, float] = {}
        for finding in findings:
            try:
                first[finding.name] = float(np.median(timed(workers[finding.tool], finding, batch, runs=3)))
            except PeerError as error:
                finding.problem = f"cannot be timed at batch {batch}: {error}"
                log(f"    {finding.name}: {finding.problem}")
        findings = [finding for finding in findings if not finding.problem]
        runs = {name: runs_per_round(taken, seconds=seconds) for name, taken in first.items()}
        log(f"timing {len(findings)} methods at batch {batch}: {rounds} rounds")
        taken: dict[str, list[list[float]]] = {finding.name: [] for finding in findings}
        for number in range(rounds):
            shift = number % len(findings)
            for finding in findings[shift:] + findings[:shift]:
                taken[finding.name].append(timed(workers[finding.tool], finding, batch, runs=runs[finding.name]))
        for finding in findings:
            finding.rounds[batch] = np.array(taken[finding.name])


def timed(worker: Worker, finding: Finding, batch: int, *, runs: int) -> list[float]:
    seconds: list[float] = worker.ask(
        "time", timeout_seconds=PATIENCE_SECONDS, method=finding.method, rows=batch, runs=runs
    )["seconds"]
    return seconds


def emulated(quick: bool) -> list[Finding]:
    """Return what ONNX Runtime's default and ours answer on AVX2 without VNNI, seconds left out."""
    findings: list[Finding] = []
    for name in ("mlp",) if quick else ("fashion", "mlp"):
        folder = folder_of(name, quick=True, log=log)  # Hundreds of inputs do: the emulator is slow.
        logits: list[np.ndarray] = []
        for tool, method in (("halve", "fp32"), ("halve", "auto, 7-bit weights"), ("onnxruntime", "default")):
            log(f"{name} on emulated AVX2: {tool} {method}")
            finding = Finding(tool=tool, method=method, model=f"{name} (AVX2)")
            findings.append(finding)
            try:
                logits.append(made_here_run_there(finding, folder))
                judge(finding, logits[-1], fp32=logits[0], folder=folder)
                if tool != "halve":
                    # The same file on this host: where nothing saturates on either, answers differ by rounding alone.
                    moved = relative_rmse(logits[-1], fp32=made_here_run_there(finding, folder, prefix=()))
                    finding.note = (
                        SATURATES if moved > SATURATED or probe_saturation().saturates else "does not saturate"
                    )
            except PeerError as error:
                finding.problem = str(error)
                log(f"    {finding.problem}")
    return findings


def made_here_run_there(finding: Finding, folder: Path, *, prefix: Sequence[str] = EMULATED) -> np.ndarray:
    """Return the logits of an artifact that is made on this host and run on the emulated one; without prefix, here."""
    with ExitStack() as stack:
        there = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = there / "kept.onnx"
        start(finding.tool, stack).ask(
            "build", timeout_seconds=PATIENCE_SECONDS, model=str(folder), method=finding.method, keep=str(kept)
        )
        for file in folder.iterdir():
            (there / file.name).symlink_to(file)
        kept.replace(there / "model.onnx")
        runner = start("halve", stack, prefix=prefix)
        return build(runner, Finding(tool="halve", method="fp32", model=finding.model), there)


def compare_int8(result: Result, found: dict[str, list[Finding]], on_avx2: list[Finding]) -> None:
    """Fill in the figures about INT8: the worst model counts."""
    speedups, ratios = {}, []
    dominated: list[str] = []
    for findings in found.values():
        fp32, ours = named(findings, "halve", "fp32"), named(findings, "halve", "auto")
        if ours.problem:
            continue
        peers = [finding for finding in findings if finding.tool != "halve"]
        dominated += dominating(ours, peers)
        default = named(peers, "onnxruntime", "default")
        ratios += [] if default.problem else [ratio_of(ours, default)]
        for batch in BATCHES:
            speedups[f"{ours.model}, batch {batch}"] = speed_ratio(fp32, ours, batch=batch)
    models = dict.fromkeys(finding.model for finding in on_avx2)
    both = [
        (named(on_avx2, "halve", "auto, 7-bit weights", model), named(on_avx2, "onnxruntime", "default", model))
        for model in models
    ]
    pairs = [
        ratio_of(ours, default)
        for ours, default in both
        if not ours.problem and not default.problem and default.note == SATURATES
    ]
    where = "emulated AVX2 without VNNI" if pairs else "this host"
    result.figures["dominated_by"] = dominated
    result.figures["int8_disagreement_measured_on"] = where
    if pairs or ratios:
        result.figures["int8_disagreement_ratio_vs_onnxruntime_default"] = max(pairs or ratios)
    if ratios:
        result.figures["int8_disagreement_ratio_vs_onnxruntime_default_this_host"] = max(ratios)
    if speedups:
        slowest = min(speedups, key=lambda name: speedups[name].median)
        result.figures["int8_speedup_vs_fp32_min"] = speedups[slowest]
        result.figures["int8_speedup_vs_fp32_min_at"] = slowest


def compare_int4(result: Result, found: dict[str, list[Finding]]) -> None:
    """Fill in the figures about 4-bit weights; the layer that was on a 4-bit grid before does not count."""
    ratios: dict[str, tuple[float, str]] = {}
    for model, findings in found.items():
        ours = named(findings, "halve", "int4")
        against = None if ours.problem else least_error_ratio(ours, [f for f in findings if f.tool != "halve"])
        if against is not None:
            ratios[model] = against
            result.figures[f"int4_error_ratio_{model.replace('-', '_')}"] = against[0]
    counted = {model: ratio for model, ratio in ratios.items() if model not in ON_A_GRID_BEFORE}
    if counted:
        worst = max(counted, key=lambda model: counted[model][0])
        result.figures["int4_error_ratio_vs_best_peer"] = counted[worst][0]
        result.figures["int4_best_peer"] = f"{counted[worst][1]} on {worst}"


def ratio_of(ours: Finding, default: Finding) -> float:
    return smoothed_ratio(ours.disagreement, default.disagreement, n=ours.rows)


def named(findings: Sequence[Finding], tool: str, method: str, model: str | None = None) -> Finding:
    return next(f for f in findings if (f.tool, f.method) == (tool, method) and model in (None, f.model))


def report(result: Result, findings: Sequence[Finding]) -> None:
    """Print the table and put what each tool did into the result."""
    rows, problems = [], []
    for finding in findings:
        entry = result.peers.setdefault(finding.tool, {})
        key = f"{finding.model}: {finding.method}"
        if finding.problem:
            entry[f"{key}: problem"] = finding.problem
            problems.append(f"no result: {finding.name} on {finding.model}: {finding.problem}")
            continue
        values = finding.values()
        entry |= {f"{key}: {name}": value for name, value in values.items()}
        rows.append([f"{finding.model}: {finding.name}", *finding.cells(BATCHES), finding.remark])
    header = ["model: method", "changed %", "rel. RMSE", "accuracy %", "MB", "s to quantize"]
    header += [f"{quantile} ms, batch {batch}" for batch in BATCHES for quantile in ("p50", "p95")]
    print(table([*header, "remark"], rows), *problems, sep="\n")


def run(quick: bool) -> Result:
    result = Result()
    found: dict[str, dict[str, list[Finding]]] = {"auto": {}, "int4": {}}
    for case in cases(quick):
        folder = folder_of(case.model, quick=quick, log=log)
        found[case.judged][case.model] = examine(case, folder, quick=quick)
    reason = emulation.why_unavailable()
    on_avx2: list[Finding] = []
    if reason is None:
        on_avx2 = emulated(quick)
    else:
        log(reason)
    compare_int8(result, found["auto"], on_avx2)
    compare_int4(result, found["int4"])
    for tool, pins in REQUIREMENTS.items():
        if tool in INT8 or tool in INT4:
            result.peers[tool] = {"packages": " ".join(pins)}
    report(result, [f for by_model in found.values() for findings in by_model.values() for f in findings] + on_avx2)
    for name, value in result.figures.items():
        print(f"{name}: {value}")
    return result


if __name__ == "__main__":
    main("quantization", run, packages=("onnxruntime", "onnx", "torch"))

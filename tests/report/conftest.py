"""Realistic run records, built by hand: what the report must be able to show."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from halve.core import (
    QUANTILE_LEVELS,
    Acceptance,
    BatchPolicy,
    Certificate,
    CertifiedStep,
    Comparison,
    Deployment,
    Gateway,
    Host,
    Latency,
    LedgerLine,
    Measurement,
    Model,
    ModelFile,
    Replay,
    ReplicaPolicy,
    Run,
    Rung,
    Stack,
    Stage,
    Verdict,
)

N_CERTIFY = 2_500


def latency(median_seconds: float, *, spread: float = 0.35) -> Latency:
    from scipy.stats import norm

    z = norm.ppf(np.clip(QUANTILE_LEVELS, 0, 0.9999))
    quantiles = median_seconds * np.exp(spread * z + 0.06 * np.maximum(z, 0) ** 2)
    return Latency(mean_seconds=median_seconds * 1.1, quantile_seconds=tuple(float(value) for value in quantiles))


def scores(quality: float, n: int = N_CERTIFY) -> tuple[float, ...]:
    right = round(quality * n)
    return (1.0,) * right + (0.0,) * (n - right)


def measurement(
    stack: str, usd: dict[str, float], quality: float, median_seconds: float, **changes: Any
) -> Measurement:
    values: dict[str, Any] = {
        "stack": stack,
        "provenance": "simulated",
        "split": "search",
        "scores": scores(quality),
        "ledger": tuple(LedgerLine(name=name, usd_per_1k_requests=value) for name, value in usd.items()),
        "latency": latency(median_seconds),
        "utilization": {"gateway": 0.21, "teacher": 0.63},
        "stage_share": {"teacher": 1.0},
        "instances": {"m6a.large": 9},
        "peak_memory_bytes": 412_000_000,
        "n_requests": 19_366,
    }
    return Measurement(**(values | changes))


def model(name: str, engine: str = "torch", size: int = 1_640_000) -> Model:
    return Model(name=name, engine=engine, files=(ModelFile(path=f"{name}.bin", sha256="ab" * 32, size_bytes=size),))  # type: ignore[arg-type]


def deployment(name: str, *, threads: int = 1, batch: int = 1, replicas: int = 2) -> Deployment:
    return Deployment(
        model=name,
        instance_type="c6a.large",
        threads=threads,
        batch=BatchPolicy(max_batch_size=batch, max_wait_seconds=0.004 if batch > 1 else 0.0),
        replica=ReplicaPolicy(replicas=replicas),
    )


def baseline_stack() -> Stack:
    return Stack(
        name="baseline",
        models=(model("teacher"),),
        stages=(Stage(kind="model", model="teacher"),),
        deployments=(deployment("teacher", threads=2, replicas=9),),
        gateway=Gateway(instance_type="m6a.large"),
    )


def final_stack() -> Stack:
    return Stack(
        name="final",
        models=(model("student", "onnxruntime", 96_000), model("teacher-int8", "onnxruntime", 420_000)),
        stages=(
            Stage(kind="exact_cache", capacity_entries=50_000, ttl_seconds=3600),
            Stage(kind="model", model="student", accept=Acceptance(rule="margin", threshold=0.5312)),
            Stage(kind="model", model="teacher-int8"),
        ),
        deployments=(deployment("student", batch=16, replicas=1), deployment("teacher-int8", batch=8)),
        gateway=Gateway(instance_type="c6a.large"),
    )


def rung(
    lever: str, description: str, measured: Measurement | None, decision: str, reason: str, **numbers: float
) -> Rung:
    return Rung(
        lever=lever,
        description=description,
        stack=None if measured is None else baseline_stack(),
        measurement=measured,
        verdict=Verdict(decision=decision, reason=reason, numbers=numbers),  # type: ignore[arg-type]
    )


def standard_rungs() -> tuple[Rung, ...]:
    sized = measurement("sized", {"teacher": 0.2105, "idle": 0.0612, "gateway": 0.0098}, 0.9824, 0.0182)
    batched = measurement("batched", {"teacher": 0.0884, "idle": 0.0291, "gateway": 0.0098}, 0.9824, 0.0231)
    cascaded = measurement("cascade", {"student": 0.0121, "teacher": 0.0164, "gateway": 0.0098}, 0.9796, 0.0094)
    dynamic = measurement("int8d", {"student": 0.0121, "teacher": 0.0188, "gateway": 0.0098}, 0.9788, 0.0101)
    static = measurement("int8s", {"student": 0.0121, "teacher": 0.0102, "gateway": 0.0098}, 0.9788, 0.0083)
    bad = measurement("cascade-bad", {"student": 0.0102, "teacher": 0.0061, "gateway": 0.0098}, 0.9604, 0.0071)
    return (
        rung("right_sizing", "9 x m6a.large, 2 threads -> 7 x c6a.large, 1 thread", sized, "keep",
             "Costs 37.6 % less at the same answers; p99 52.1 ms is within 100.0 ms.",
             quality_drop=0.0, quality_drop_upper_bound=0.0),
        rung("batching", "up to 16 requests, waiting at most 4 ms", batched, "keep",
             "Costs 54.8 % less at the same answers; p99 66.1 ms is within 100.0 ms.",
             quality_drop=0.0, quality_drop_upper_bound=0.0),
        rung("exact_cache", "50,000 entries, 1 hour", batched, "reject",
             "Would hit 0.0 % of requests: nothing in this traffic repeats, and no repeat was declared.",
             quality_drop=0.0, quality_drop_upper_bound=0.0),
        rung("cascade", "student answers when its margin is at least 0.21", bad, "reject",
             "Quality drop is at most 2.94 points at 95 % confidence; 1.00 was promised.",
             quality_drop=0.022, quality_drop_upper_bound=0.0294),
        rung("cascade", "student answers when its margin is at least 0.5312", cascaded, "keep",
             "Costs 69.9 % less; drop at most 0.51 points at 95 % confidence.",
             quality_drop=0.0028, quality_drop_upper_bound=0.0051),
        rung("quantization", "int8 dynamic", dynamic, "reject",
             "Costs 6.3 % more than the step before.", quality_drop=0.0036, quality_drop_upper_bound=0.0062),
        rung("quantization", "int8 static, 7-bit weights (no VNNI on this host)", static, "keep",
             "Costs 16.2 % less; drop at most 0.62 points at 95 % confidence.",
             quality_drop=0.0036, quality_drop_upper_bound=0.0062),
    )  # fmt: skip


def certificate(rungs: tuple[Rung, ...], **changes: Any) -> Certificate:
    steps = tuple(
        CertifiedStep(
            lever=item.lever,
            description=item.description,
            quality_drop=item.verdict.numbers.get("quality_drop", 0.0),
            quality_drop_upper_bound=item.verdict.numbers.get("quality_drop_upper_bound", 0.0) + 0.0012,
            p_value=0.004,
            passed=True,
        )
        for item in rungs
        if item.verdict.keep
    )
    values: dict[str, Any] = {
        "holds": True,
        "quality_drop": 0.0032,
        "quality_drop_upper_bound": 0.0064,
        "quality_drop_at_most": 0.01,
        "confidence": 0.95,
        "n": N_CERTIFY,
        "minimum_detectable_drop": 0.0141,
        "method": "exact conditional test on discordant pairs (Clopper and Pearson 1934)",
        "steps": steps,
    }
    return Certificate(**(values | changes))


def replay() -> Replay:
    predicted = measurement("final", {"student": 0.0121, "teacher-int8": 0.0102, "gateway": 0.0098}, 0.979, 0.0086)
    replayed = replace(predicted, provenance="replayed", latency=latency(0.0091, spread=0.41))
    return Replay(
        latency_p50_seconds=Comparison(predicted=0.0086, replayed=0.0091),
        latency_p99_seconds=Comparison(predicted=0.0291, replayed=0.0342),
        usd_per_1k_requests=Comparison(predicted=0.0321, replayed=0.0336),
        n_requests=1_204,
        duration_seconds=30.0,
        thinned_to_one_of=2,
        send_lateness_p99_seconds=0.0008,
        client_cpu_share=0.18,
        agreeing_answers_share=1.0,
        failed_requests=0,
        overhead_p50_seconds=0.0011,
        predicted=predicted,
        replayed=replayed,
        notes=("Trace and replicas were both divided by 2: this host has 2 cores.",),
    )


def standard_run(**changes: Any) -> Run:
    rungs = changes.pop("rungs", standard_rungs())
    before = {"teacher": 0.2511, "idle capacity": 0.1820, "gateway": 0.0181}
    after = {"student": 0.0119, "teacher-int8": 0.0101, "idle capacity": 0.0031, "gateway": 0.0098}
    baseline = measurement("baseline", before, 0.9816, 0.0274, split="certify")
    final = measurement(
        "final", after, 0.9784, 0.0086, split="certify",
        stage_share={"student": 0.871, "teacher-int8": 0.129}, instances={"c6a.large": 2},
        utilization={"gateway": 0.31, "student": 0.58, "teacher-int8": 0.44},
    )  # fmt: skip
    values: dict[str, Any] = {
        "name": "mnist-demo",
        "baseline": baseline,
        "final": final,
        "baseline_stack": baseline_stack(),
        "final_stack": final_stack(),
        "saving_rate": 1 - final.usd_per_1k_requests / baseline.usd_per_1k_requests,
        "certificate": certificate(rungs),
        "rungs": rungs,
        "replay": replay(),
        "latency_p99_at_most_seconds": 0.1,
        "assumptions": (
            "No request repeats: the trace names no content, and no popularity law was declared.",
            "Instance types of the same processor family run as fast per vCPU as this host.",
            "The replay ran at 1 of 2 scale: trace and replicas were divided together.",
        ),
        "commands": (
            "halve optimize halve.yaml --seed 0",
            "halve report runs/latest",
            "halve serve runs/latest/stack.yaml",
        ),
        "host": Host(
            processor="AMD EPYC 7B13",
            cpu_count=2,
            memory_bytes=8_200_000_000,
            instruction_sets=("avx2", "fma"),
            versions={
                "halve": "0.1.0",
                "python": "3.11.9",
                "onnxruntime": "1.23.0",
                "torch": "2.9.0",
                "numpy": "2.3.1",
            },
        ),
        "seed": 0,
        "seconds": 143.2,
    }
    return Run(**(values | changes))


def nothing_kept_run() -> Run:
    rungs = tuple(
        replace(item, verdict=replace(item.verdict, decision="reject", reason="Costs more than the step before."))
        for item in standard_rungs()
    )
    run = standard_run(rungs=rungs)
    return replace(
        run, final=run.baseline, final_stack=run.baseline_stack, saving_rate=0.0, replay=None,
        certificate=certificate((), quality_drop=0.0, quality_drop_upper_bound=0.0),
    )  # fmt: skip


def dearer_run() -> Run:
    usd = {"teacher": 0.31, "idle capacity": 0.20, "gateway": 0.02, "refund of unused credits": -0.015}
    worse = measurement("dear", usd, 0.9816, 0.02)
    rungs = (rung("batching", "batches that only wait", worse, "keep", "Kept by hand.", quality_drop=-0.001),)
    final = replace(worse, split="certify")
    run = standard_run(rungs=rungs, final=final, replay=None)
    return replace(run, saving_rate=1 - final.usd_per_1k_requests / run.baseline.usd_per_1k_requests)


def long_names_run() -> Run:
    name = "<b>the-customer-intent-classification-service-of-the-northern-region</b>-v2.1.7-" + "x" * 60
    rungs = tuple(
        replace(
            item,
            description=item.description + " and " + "averylongunbrokenword" * 6,
            lever=item.lever + "_of_many_words",
        )
        for item in standard_rungs()
    )
    run = standard_run(rungs=rungs, name=name)
    ledger = tuple(LedgerLine(name=f"{name} {index}", usd_per_1k_requests=0.01) for index in range(12))
    final = replace(run.final, ledger=ledger, stage_share={name: 0.004, name + "2": 0.006, name + "3": 0.99})
    return replace(run, final=final, commands=("halve optimize " + "very/long/path/" * 20 + "halve.yaml",))


def one_rung_run() -> Run:
    nothing = rung("exact_cache", "an exact cache", None, "reject", "Nothing in this traffic repeats.")
    run = standard_run(rungs=(nothing,), replay=None)
    return replace(run, final=run.baseline, saving_rate=0.0, certificate=certificate(()))


def refused_run() -> Run:
    run = standard_run()
    steps = (
        *run.certificate.steps[:-1],
        replace(run.certificate.steps[-1], quality_drop_upper_bound=0.0181, passed=False),
    )
    refused = certificate((), holds=False, quality_drop=0.0121, quality_drop_upper_bound=0.0181, steps=steps)
    return replace(run, certificate=refused)


RUNS: dict[str, Callable[[], Run]] = {
    "standard": standard_run,
    "nothing_kept": nothing_kept_run,
    "dearer": dearer_run,
    "no_replay": lambda: standard_run(replay=None),
    "long_names": long_names_run,
    "one_rung": one_rung_run,
    "refused": refused_run,
}


@pytest.fixture(params=sorted(RUNS))
def run(request: pytest.FixtureRequest) -> Run:
    """Every kind of record in turn."""
    return RUNS[request.param]()


@pytest.fixture
def runs() -> dict[str, Callable[[], Run]]:
    """The records by name."""
    return RUNS

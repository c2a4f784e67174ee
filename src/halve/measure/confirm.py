"""The confirmation: the stack is really served, the trace really sent, and the prediction put beside the result.

What a simulation of models and queues cannot know is the way through the gateway and the operating system.
It is learned on every other block of a few seconds, as measured minus simulated seconds by the stage that answered,
and added to the simulation of the blocks between, which are the ones that count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from halve.core import (
    Comparison,
    FloatArray,
    IntArray,
    Latency,
    Measurement,
    Payload,
    Progress,
    Replay,
    Stack,
    Traffic,
)
from halve.measure.bench import MeasuringBench
from halve.measure.compose import Composition, exits
from halve.measure.planner import measured, price, run_simulation
from halve.measure.rehearsal import Rehearsal, plan_rehearsal
from halve.measure.replay import ReplayRecord, encode_bodies, pinned, plan_cores, replay, server_process
from halve.measure.replay.process import free_port
from halve.measure.scrape import since, station_vcpu_seconds
from halve.pricing import IDLE_CAPACITY
from halve.units import format_percent, format_seconds, format_usd

_FEWEST_RESIDUALS = 30
_WARM_UP = 64

ServeCommand = Callable[[Stack, int], Sequence[str]]
"""Writes a stack file where its models lie, and returns the command that serves it on a port."""


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """One window, really sent."""

    traffic: Traffic
    leaving: IntArray
    record: ReplayRecord
    busy_seconds: dict[str, float]


def confirm(
    stack: Stack, *, bench: MeasuringBench, seconds: float, command: ServeCommand, progress: Progress
) -> Replay:
    """Serve the stack, replay the busiest window of the trace, and compare every other block with its prediction.

    Args:
        stack: The chosen stack, with its planned replicas.
        bench: Whose tables predict.
        seconds: Seconds to compare; twice as many are replayed.
        command: Makes the command line of the server.
        progress: Where bars go.

    Raises:
        ReplayError: If the server does not start, or the host is far too small.
    """
    cores = plan_cores()
    composition = bench.composition(stack, split="certify")

    def leaving(traffic: Traffic) -> IntArray:
        # What is really sent: arrivals that stand on one example are identical on the wire.
        traffic = replace(traffic, content=traffic.example % len(bench.workload.certify))
        return exits(stack, traffic=traffic, composition=composition, cache_hits=bench.rules.cache_hits)

    rehearsal = plan_rehearsal(
        stack,
        traffic=bench.workload.traffic,
        curves=bench.curves(stack),
        leaving=leaving,
        seconds=seconds,
        server_cores=max(len(cores.server_cores), 1),
        seed=bench.seed,
    )
    window = rehearsal.window
    with progress.task(f"replaying {window.duration_seconds:g} s against the real server", total=2) as advance:
        port = free_port()
        argv = command(rehearsal.stack, port)
        with server_process(argv, url=f"http://127.0.0.1:{port}", cores=cores.server_cores) as server:
            advance()
            with pinned(cores.client_cores):
                sent = _send(server.url, window, stack=stack, bench=bench, leaving=leaving(window))
            advance()
    notes = (*rehearsal.notes, *([cores.note] if cores.note else ()))
    return _compare(sent, rehearsal=replace(rehearsal, notes=notes), bench=bench, composition=composition)


def _send(url: str, traffic: Traffic, *, stack: Stack, bench: MeasuringBench, leaving: IntArray) -> _Sent:
    examples = bench.workload.certify
    asked = traffic.example % len(examples)
    payloads: dict[int, Payload] = {int(row): examples[row].payload for row in np.unique(asked)}
    bodies = dict(zip(payloads, encode_bodies(list(payloads.values())), strict=True))
    warm_up = encode_bodies([example.payload for example in bench.workload.search[:_WARM_UP]])
    replay(url, model_name=stack.name, arrival_seconds=np.zeros(1), bodies=warm_up[:1], warm_up=warm_up)
    before: dict[str, float] = station_vcpu_seconds(url)
    record = replay(
        url,
        model_name=stack.name,
        arrival_seconds=traffic.arrival_seconds,
        bodies=[bodies[int(row)] for row in asked],
    )
    busy = since(before, station_vcpu_seconds(url))
    return _Sent(traffic=traffic, leaving=leaving, record=record, busy_seconds=busy)


def _simulated(rehearsal: Rehearsal, sent: _Sent, bench: MeasuringBench) -> FloatArray:
    """Return latencies with every service time at its median: what unevenness adds is in the residuals."""
    result = run_simulation(
        rehearsal.stack,
        traffic=sent.traffic,
        leaving=sent.leaving,
        curves=bench.curves(rehearsal.stack),
        seed=bench.seed,
        noisy=False,
    )
    return result.latency_seconds


def residuals_by_exit(
    measured_seconds: FloatArray, simulated_seconds: FloatArray, leaving: IntArray
) -> dict[int, FloatArray]:
    """Return measured minus simulated seconds by the station where requests left; failures are left out.

    Stations with fewer than 30 answers get the residuals of all.
    """
    answered = np.isfinite(measured_seconds)
    every = (measured_seconds - simulated_seconds)[answered]
    pools = {}
    for station in np.unique(leaving):
        own = (measured_seconds - simulated_seconds)[answered & (leaving == station)]
        pools[int(station)] = own if len(own) >= _FEWEST_RESIDUALS else every
    return pools


def with_residuals(
    simulated_seconds: FloatArray, leaving: IntArray, pools: dict[int, FloatArray], *, seed: int
) -> FloatArray:
    """Return simulated latencies, each plus a residual drawn from its station's pool, never below zero."""
    rng = np.random.default_rng(seed)
    everyone = np.concatenate(list(pools.values()))
    predicted = simulated_seconds.copy()
    for station in np.unique(leaving):
        rows = leaving == station
        predicted[rows] += rng.choice(pools.get(int(station), everyone), size=int(rows.sum()))
    return np.maximum(predicted, 0.0)


def _compare(sent: _Sent, *, rehearsal: Rehearsal, bench: MeasuringBench, composition: Composition) -> Replay:
    record, compared = sent.record, rehearsal.is_confirming
    simulated = _simulated(rehearsal, sent, bench)
    pools = residuals_by_exit(record.latency_seconds[~compared], simulated[~compared], sent.leaving[~compared])
    expected = with_residuals(simulated[compared], sent.leaving[compared], pools, seed=bench.seed)
    happened = record.latency_seconds[compared]
    predicted = _predicted(rehearsal, sent, bench, composition, expected)
    replayed = _replayed(rehearsal, sent, bench, composition, happened[np.isfinite(happened)])
    offline = composition.answers[sent.traffic.example % len(composition.answers)]
    lateness = record.send_lateness_seconds[np.isfinite(record.send_lateness_seconds)]
    return Replay(
        latency_p50_seconds=Comparison(predicted=predicted.latency.p50_seconds, replayed=replayed.latency.p50_seconds),
        latency_p99_seconds=Comparison(predicted=predicted.latency.p99_seconds, replayed=replayed.latency.p99_seconds),
        usd_per_1k_requests=Comparison(predicted=predicted.usd_per_1k_requests, replayed=replayed.usd_per_1k_requests),
        n_requests=sent.traffic.n_requests,
        duration_seconds=sent.traffic.duration_seconds,
        thinned_to_one_of=rehearsal.thinned_to_one_of,
        send_lateness_p99_seconds=float(np.quantile(lateness, 0.99)),
        client_cpu_share=record.client_cpu_share,
        agreeing_answers_share=float(np.mean(record.labels == offline)),
        failed_requests=record.failed,
        overhead_p50_seconds=float(np.median(np.concatenate(list(pools.values())))),
        predicted=predicted,
        replayed=replayed,
        notes=(*rehearsal.notes, *_remarks(rehearsal, sent, simulated, predicted, replayed, bench)),
    )


def _answered_share(stack: Stack, record: ReplayRecord) -> dict[str, float]:
    """Return the share of the answers that each stage really gave."""
    names = (["exact_cache"] if stack.cache_stage else []) + [str(stage.model) for stage in stack.model_stages]
    answered = [stage for stage in record.stages if stage]
    return {name: answered.count(name) / max(len(answered), 1) for name in names}


def _remarks(
    rehearsal: Rehearsal,
    sent: _Sent,
    simulated: FloatArray,
    predicted: Measurement,
    replayed: Measurement,
    bench: MeasuringBench,
) -> list[str]:
    """Say what the comparison rests on, and what it could not show."""
    compared, promise = rehearsal.is_confirming, bench.workload.objective.latency_p99_seconds
    alone = float(np.quantile(simulated[compared], 0.99))
    names = ["exact_cache", *(str(stage.model) for stage in rehearsal.stack.model_stages)]
    expected = np.array(names)[sent.leaving]
    same_stage = float(np.mean(np.array(sent.record.stages) == expected))
    remarks = [
        f"time spent around the models was learned on every other {rehearsal.block_seconds:g} s; latencies are "
        f"compared on the {int(compared.sum()):,} requests between (p99 without that time: {format_seconds(alone)})",
        f"{format_percent(same_stage)} of the requests were answered by the stage that was predicted",
        f"both fleets are the same, so their cost differs only if answers run late or fail; busy compute: "
        f"{format_usd(_busy_usd(predicted))} predicted, {format_usd(_busy_usd(replayed))} replayed per 1,000 requests",
    ]
    if replayed.latency.p99_seconds > promise:
        taken = format_seconds(replayed.latency.p99_seconds)
        remarks.append(f"the replayed p99, {taken}, is over the promised {format_seconds(promise)}")
    return remarks


def _busy_usd(measurement: Measurement) -> float:
    return sum(line.usd_per_1k_requests for line in measurement.ledger if line.name != IDLE_CAPACITY)


def _predicted(
    rehearsal: Rehearsal, sent: _Sent, bench: MeasuringBench, composition: Composition, latencies: FloatArray
) -> Measurement:
    curves = bench.curves(rehearsal.stack)
    simulation = run_simulation(
        rehearsal.stack, traffic=sent.traffic, leaving=sent.leaving, curves=curves, seed=bench.seed
    )
    figures = measured(
        rehearsal.stack,
        split="certify",
        scores=composition.scores,
        simulation=simulation,
        leaving=sent.leaving,
        traffic=sent.traffic,
        curves=curves,
        catalogue=bench.catalogue,
    )
    return replace(figures, latency=Latency.of(latencies))


def _replayed(
    rehearsal: Rehearsal, sent: _Sent, bench: MeasuringBench, composition: Composition, latencies: FloatArray
) -> Measurement:
    record, stack = sent.record, rehearsal.stack
    answered = sent.traffic.n_requests - record.failed
    # The fleet is paid until the last answer, if that comes after the window.
    paid_seconds = max(sent.traffic.duration_seconds, record.wall_seconds)
    threads = {deployment.model: deployment.threads for deployment in stack.deployments}
    bill = price(
        stack,
        catalogue=bench.catalogue,
        curves=bench.curves(stack),
        busy_seconds={name: seconds / threads.get(name, 1) for name, seconds in sent.busy_seconds.items()},
        duration_seconds=paid_seconds,
        n_requests=answered,
    )
    vcpus = {"gateway": stack.gateway.replica.replicas} | {item.model: item.vcpus for item in stack.deployments}
    return Measurement(
        stack=stack.name,
        provenance="replayed",
        split="certify",
        scores=tuple(float(score) for score in composition.scores),
        ledger=bill.lines,
        latency=Latency.of(latencies),
        utilization={
            name: min(seconds / (vcpus[name] * paid_seconds), 1.0) for name, seconds in sent.busy_seconds.items()
        },
        stage_share=_answered_share(stack, record),
        instances=bill.instances,
        peak_memory_bytes=0,
        n_requests=answered,
    )

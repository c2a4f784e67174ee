"""From a stack and its curves to latency and money: builds the stations, simulates, packs, prices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from halve.core import BatchPolicy, FloatArray, IntArray, Latency, Measurement, ServiceCurve, Stack, Traffic
from halve.measure.simulate import Simulation, Station, simulate
from halve.pricing import Bill, Catalogue, Demand, ledger

GATEWAY = "gateway"
MEMORY_PER_PROCESS_BYTES = 256 * 2**20
"""Interpreter, libraries and buffers of one replica, on top of what its model added when it was profiled."""

PLANNED_SLOWDOWN = 1.25
"""Fleets are sized to keep the promise even if everything takes 25 % longer: a few more requests that go on to the
dear model, a slow neighbour, and what a simulation does not know must not push a busy station over the edge."""

Fewest = Callable[..., tuple[int, ...] | None]
"""The right-sizing technique's search; see `halve.techniques.infrastructure.right_sizing.fewest_replicas`."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one vector of replica counts does to latency."""

    latency_p99_seconds: float
    wait_p99_seconds: tuple[float, ...]


def stations(
    stack: Stack, *, curves: Mapping[str, ServiceCurve], noisy: bool = True, slowdown: float = 1.0
) -> tuple[Station, ...]:
    """Return the gateway and the model stages as queueing stations, in order.

    Args:
        curves: By model name, and `gateway`; measured with the deployment's threads.
        noisy: Draw service times with the unevenness that was measured; otherwise medians only.
        slowdown: Every service takes so many times as long as measured.
    """
    front = curves[GATEWAY]
    first = Station(
        name=GATEWAY,
        seconds_by_batch=front.seconds_by_batch() * slowdown,
        replicas=stack.gateway.replica.replicas,
        batch=BatchPolicy(),
        noise_ratios=front.noise_ratios() if noisy else None,
    )
    chain = [first]
    for stage in stack.model_stages:
        deployment, curve = stack.deployment(str(stage.model)), curves[str(stage.model)]
        chain.append(
            Station(
                name=str(stage.model),
                seconds_by_batch=curve.seconds_by_batch() * slowdown,
                replicas=deployment.replica.replicas,
                batch=deployment.batch,
                noise_ratios=curve.noise_ratios() if noisy else None,
            )
        )
    return tuple(chain)


def run_simulation(
    stack: Stack,
    *,
    traffic: Traffic,
    leaving: IntArray,
    curves: Mapping[str, ServiceCurve],
    seed: int,
    noisy: bool = True,
    slowdown: float = 1.0,
) -> Simulation:
    """Replay the traffic through the stack's stations."""
    return simulate(
        traffic.arrival_seconds,
        stations=stations(stack, curves=curves, noisy=noisy, slowdown=slowdown),
        exits=leaving,
        duration_seconds=traffic.duration_seconds,
        seed=seed,
    )


def fit_replicas(
    stack: Stack,
    *,
    traffic: Traffic,
    leaving: IntArray,
    curves: Mapping[str, ServiceCurve],
    latency_p99_seconds: float,
    fewest: Fewest,
    seed: int,
) -> Stack | None:
    """Return the stack with the cheapest replica counts that keep the promise, or None if none does."""
    names = [str(stage.model) for stage in stack.model_stages]
    threads = [1, *(stack.deployment(name).threads for name in names)]

    def with_counts(counts: Sequence[int]) -> Stack:
        return stack.with_replicas(gateway=counts[0], models=dict(zip(names, counts[1:], strict=True)))

    def evaluate(counts: tuple[int, ...]) -> Load:
        result = run_simulation(
            with_counts(counts), traffic=traffic, leaving=leaving, curves=curves, seed=seed, slowdown=PLANNED_SLOWDOWN
        )
        return Load(
            latency_p99_seconds=float(np.quantile(result.latency_seconds, 0.99)),
            wait_p99_seconds=tuple(load.wait_p99_seconds for load in result.loads),
        )

    lowest = _least_counts(stack, traffic=traffic, leaving=leaving, curves=curves)
    counts = fewest(
        lowest=lowest,
        vcpus_each=threads,
        evaluate=evaluate,
        p99_at_most_seconds=latency_p99_seconds,
        most_replicas=max(256, 4 * max(lowest)),
    )
    return None if counts is None else with_counts(counts)


def _least_counts(
    stack: Stack, *, traffic: Traffic, leaving: IntArray, curves: Mapping[str, ServiceCurve]
) -> list[int]:
    """Return the replicas below which each station would be overloaded even with full batches."""
    counts = []
    for index, station in enumerate(stations(stack, curves=curves, noisy=False, slowdown=PLANNED_SLOWDOWN)):
        visits = int(np.count_nonzero(leaving >= index))
        sizes = np.arange(1, station.batch.max_batch_size + 1)
        per_item = station.seconds_by_batch[: len(sizes)] / sizes
        counts.append(max(1, int(np.ceil(visits * float(per_item.min()) / traffic.duration_seconds))))
    return counts


def price(
    stack: Stack,
    *,
    catalogue: Catalogue,
    curves: Mapping[str, ServiceCurve],
    busy_seconds: Mapping[str, float],
    duration_seconds: float,
    n_requests: int,
) -> Bill:
    """Return the bill of a stack's whole fleet over the trace, idle capacity included.

    Args:
        busy_seconds: Wall seconds that all replicas of a station were busy, by station name.
    """
    front = Demand(
        name=GATEWAY,
        instance_type=stack.gateway.instance_type,
        vcpus_each=1,
        memory_bytes_each=MEMORY_PER_PROCESS_BYTES,
        replicas=stack.gateway.replica.replicas,
        busy_vcpu_seconds=busy_seconds[GATEWAY],
    )
    demands = [front]
    for deployment in stack.deployments:
        memory = curves[deployment.model].peak_memory_bytes + stack.model(deployment.model).size_bytes
        demands.append(
            Demand(
                name=deployment.model,
                instance_type=deployment.instance_type,
                vcpus_each=deployment.threads,
                memory_bytes_each=MEMORY_PER_PROCESS_BYTES + memory,
                replicas=deployment.replica.replicas,
                busy_vcpu_seconds=busy_seconds[deployment.model] * deployment.threads,
            )
        )
    return ledger(demands, duration_seconds=duration_seconds, n_requests=n_requests, catalogue=catalogue)


def stage_shares(stack: Stack, leaving: IntArray) -> dict[str, float]:
    """Return the share of requests that each stage answered."""
    names = (["exact_cache"] if stack.cache_stage else []) + [str(stage.model) for stage in stack.model_stages]
    counts = np.bincount(leaving, minlength=len(stack.model_stages) + 1)
    kept = counts if stack.cache_stage else counts[1:]
    return {name: float(count) / len(leaving) for name, count in zip(names, kept, strict=True)}


def measured(
    stack: Stack,
    *,
    split: str,
    scores: FloatArray,
    simulation: Simulation,
    leaving: IntArray,
    traffic: Traffic,
    curves: Mapping[str, ServiceCurve],
    catalogue: Catalogue,
) -> Measurement:
    """Return the measurement of a simulated stack."""
    bill = price(
        stack,
        catalogue=catalogue,
        curves=curves,
        busy_seconds={load.name: load.busy_seconds for load in simulation.loads},
        duration_seconds=traffic.duration_seconds,
        n_requests=traffic.n_requests,
    )
    memory = sum(curves[deployment.model].peak_memory_bytes for deployment in stack.deployments)
    return Measurement(
        stack=stack.name,
        provenance="simulated",
        split="search" if split == "search" else "certify",
        scores=tuple(float(score) for score in scores),
        ledger=bill.lines,
        latency=Latency.of(simulation.latency_seconds),
        utilization={load.name: min(load.utilization, 1.0) for load in simulation.loads},
        stage_share=stage_shares(stack, leaving),
        instances=bill.instances,
        peak_memory_bytes=memory,
        n_requests=traffic.n_requests,
    )

"""What can be rehearsed on this host: a stack and the busiest window of the trace, cut into blocks.

Where the planned replicas do not fit, the trace is divided by a number, replicas by the same but to no fewer
than one each, and predictions are made for that case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from halve.core import IntArray, ServiceCurve, Stack, Traffic
from halve.errors import ReplayError
from halve.measure.planner import run_simulation

BLOCK_SECONDS = 5.0

MOST_BUSY_SHARE = 0.3
"""Of the cores left to the server: beyond, replicas that share a core would wait for each other, which replicas
with cores of their own never do."""

_MOST_THINNED = 64


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A case that this host can really run.

    Args:
        stack: The planned stack with its replicas divided.
        window: The busiest window, thinned.
        block_seconds: Its blocks are learned from and compared in turn, so that a drift of the host hits both.
        thinned_to_one_of: Divisor of trace and replicas.
        notes: What was changed, in sentences.
    """

    stack: Stack
    window: Traffic
    block_seconds: float
    thinned_to_one_of: int
    notes: tuple[str, ...]

    @property
    def is_confirming(self) -> NDArray[np.bool_]:
        """Whether each request of the window is compared; the others, in every other block, are learned from."""
        blocks = np.floor_divide(self.window.arrival_seconds, self.block_seconds).astype(np.int64)
        return np.asarray(blocks % 2 == 1)


def plan_rehearsal(
    stack: Stack,
    *,
    traffic: Traffic,
    curves: Mapping[str, ServiceCurve],
    leaving: Callable[[Traffic], IntArray],
    seconds: float,
    server_cores: int,
    seed: int,
) -> Rehearsal:
    """Return the largest share of the planned fleet and of its busiest window that fits the server's cores.

    Args:
        leaving: Returns the station at which each arrival of some traffic leaves.
        seconds: Seconds to compare; the window is twice as long.
        server_cores: Cores for the server; the load generator has one of its own.

    Raises:
        ReplayError: If even one request in 64 would be too much for this host.
    """
    start, length = busiest_window(traffic, seconds=2 * seconds)
    planned = [stack.gateway.replica.replicas, *(deployment.replica.replicas for deployment in stack.deployments)]
    vcpus = stack.gateway.replica.replicas + sum(deployment.vcpus for deployment in stack.deployments)
    step = 1 if vcpus <= server_cores else max(planned)
    while True:
        smaller = _divided(stack, step)
        window = traffic.window(start_seconds=start, length_seconds=length).every(step)
        result = run_simulation(smaller, traffic=window, leaving=leaving(window), curves=curves, seed=seed)
        busy = sum(load.busy_seconds for load in result.loads) / (length * server_cores)
        if busy <= MOST_BUSY_SHARE:
            break
        if step >= _MOST_THINNED:
            raise ReplayError(
                f"this host cannot rehearse the stack: 1 request in {step} keeps {busy:.0%} of {server_cores} core busy"
            )
        step += 1
    notes = _notes(stack, smaller, traffic=traffic, window=(start, length), step=step, server_cores=server_cores)
    found = Rehearsal(
        stack=smaller,
        window=window,
        block_seconds=min(BLOCK_SECONDS, length / 4),
        thinned_to_one_of=step,
        notes=notes,
    )
    if len(set(found.is_confirming.tolist())) < 2:
        rule = "requests both to learn the gateway's overhead from and to compare"
        raise ReplayError(f"the busiest {length:g} s of the trace must hold {rule}. Got {window.n_requests}.")
    return found


def _notes(
    stack: Stack, smaller: Stack, *, traffic: Traffic, window: tuple[float, float], step: int, server_cores: int
) -> tuple[str, ...]:
    """Say what of the plan is rehearsed."""
    start, length = window
    notes = [f"replayed the busiest {length:g} s of {traffic.duration_seconds:g} s (from {start:g} s)"]
    if step > 1:
        counts = {"gateway": (stack.gateway, smaller.gateway)} | {
            old.model: (old, new) for old, new in zip(stack.deployments, smaller.deployments, strict=True)
        }
        fleets = ", ".join(
            f"{name} {new.replica.replicas} of {old.replica.replicas}" for name, (old, new) in counts.items()
        )
        notes.append(
            f"1 request in {step} was sent, to a fleet divided by {step} but never below one replica each ({fleets}), "
            f"because this host has {server_cores} core for the server"
        )
    kept = smaller.gateway.replica.replicas + sum(deployment.vcpus for deployment in smaller.deployments)
    if kept > server_cores:
        notes.append(f"the {kept} vCPUs of the rehearsed fleet shared {server_cores} core")
    return tuple(notes)


def _divided(stack: Stack, step: int) -> Stack:
    counts = {deployment.model: ceil(deployment.replica.replicas / step) for deployment in stack.deployments}
    return stack.with_replicas(gateway=ceil(stack.gateway.replica.replicas / step), models=counts)


def busiest_window(traffic: Traffic, *, seconds: float) -> tuple[float, float]:
    """Return start and length of the window with the most arrivals; all of a short trace."""
    length = min(seconds, traffic.duration_seconds)
    arrivals = traffic.arrival_seconds
    counts = np.searchsorted(arrivals, arrivals + length) - np.arange(len(arrivals))
    start = float(arrivals[int(np.argmax(counts))])
    return min(start, traffic.duration_seconds - length), length

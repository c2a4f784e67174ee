"""Requests per second of halve's simulator against SimPy: the same models, arrivals and service draws.

Two models: M/M/4, and a chain of three stations with batching. SimPy runs M/M/4 as its documentation writes a
queue, a process and a `Resource` request each (`ratio_vs_simpy`), and both models in callback style without a
process per request, which is about the fastest SimPy can be made (`ratio_vs_simpy_callbacks`, `chain_...`).
Every request's latency is compared before anything is timed. Drawing random numbers is inside our time and
outside SimPy's. All run on one thread and do nothing but compute, so processor seconds are counted: what else
the machine does matters less to them than to wall time.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import process_time
from typing import Any

import numpy as np
import simpy

from benchmarks._common import Estimate, Result, interleaved, main, median_interval, table
from halve.core import BatchPolicy, FloatArray, IntArray
from halve.measure.simulate import Simulation, Station, service_ratios, simulate

SEED = 7
SERVERS = 4
REPEATS = 20


@dataclass(frozen=True, kw_only=True)
class Model:
    """A chain and the trace it is offered."""

    arrivals: FloatArray
    stations: tuple[Station, ...]
    exits: IntArray

    def ours(self) -> Simulation:
        end = float(self.arrivals[-1])
        return simulate(self.arrivals, stations=self.stations, exits=self.exits, duration_seconds=end, seed=SEED)

    def ratios(self) -> list[list[float]]:
        """The draws that `ours` makes, as lists, which SimPy reads faster than arrays."""
        return [
            service_ratios(station, number=number, count=len(self.arrivals), seed=SEED).tolist()
            for number, station in enumerate(self.stations)
        ]


def mmc(n: int) -> Model:
    """M/M/4 at 80 % utilization; service times drawn from 10,000 exponential ones."""
    random = np.random.default_rng(SEED)
    station = Station(
        name="model",
        seconds_by_batch=np.array([1.0]),
        replicas=SERVERS,
        batch=BatchPolicy(),
        noise_ratios=random.exponential(size=10_000),
    )
    arrivals = np.cumsum(random.exponential(1 / (0.8 * SERVERS), size=n))
    return Model(arrivals=arrivals, stations=(station,), exits=np.zeros(n, dtype=np.int64))


def chain(n: int) -> Model:
    """A gateway, a small model in batches of up to 16 and a large one in batches of up to 8 or 20 ms."""
    random = np.random.default_rng(SEED)
    noise = random.lognormal(sigma=0.2, size=1_000)
    one = BatchPolicy()
    small, large = BatchPolicy(max_batch_size=16), BatchPolicy(max_batch_size=8, max_wait_seconds=0.02)
    curve = np.arange(1, 17)
    stations = (
        Station(name="gateway", seconds_by_batch=np.array([0.0005]), replicas=1, batch=one, noise_ratios=noise),
        Station(name="small", seconds_by_batch=0.002 + 0.0005 * curve, replicas=2, batch=small, noise_ratios=noise),
        Station(name="large", seconds_by_batch=0.03 + 0.01 * curve, replicas=6, batch=large, noise_ratios=noise),
    )
    arrivals = np.cumsum(random.gamma(0.5, 2 / 1000, size=n))
    exits = np.where(random.random(n) < 0.8, 1, 2)
    return Model(arrivals=arrivals, stations=stations, exits=exits)


class CallbackStation:
    """A station in SimPy as fast as its users write it: one event per batch and one per deadline."""

    def __init__(self, env: simpy.Environment, *, station: Station, ratios: list[float]) -> None:
        self.env, self.ratios = env, ratios
        self.seconds = station.seconds_by_batch.tolist()
        self.largest, self.wait = station.batch.max_batch_size, station.batch.max_wait_seconds
        self.idle, self.n_batches = station.replicas, 0
        self.waiting: deque[tuple[float, int]] = deque()
        self.leave: Callable[[list[int]], None] = lambda batch: None

    def arrive(self, requests: list[int]) -> None:
        now = self.env.now
        self.waiting.extend((now, request) for request in requests)
        if self.wait:
            self.env.timeout(self.wait).callbacks.append(self.consider)
        self.consider(None)

    def consider(self, _: object) -> None:
        waiting = self.waiting
        while self.idle and waiting and (len(waiting) >= self.largest or self.env.now >= waiting[0][0] + self.wait):
            batch = [waiting.popleft()[1] for _ in range(min(self.largest, len(waiting)))]
            self.idle -= 1
            duration = self.seconds[len(batch) - 1] * self.ratios[self.n_batches]
            self.n_batches += 1
            self.env.timeout(duration).callbacks.append(partial(self.finish, batch))

    def finish(self, batch: list[int], _: object) -> None:
        self.idle += 1
        self.leave(batch)
        self.consider(None)


def simpy_callbacks(model: Model, *, ratios: list[list[float]]) -> FloatArray:
    """Return every latency, from SimPy in callback style."""
    env = simpy.Environment()
    times, exits = model.arrivals.tolist(), model.exits.tolist()
    answered = [0.0] * len(times)
    stations = [CallbackStation(env, station=s, ratios=r) for s, r in zip(model.stations, ratios, strict=True)]

    def leave(number: int, batch: list[int]) -> None:
        now, onward = env.now, []
        for request in batch:
            if exits[request] > number:
                onward.append(request)
            else:
                answered[request] = now
        if onward:
            stations[number + 1].arrive(onward)

    def source() -> Any:
        for request, time in enumerate(times):
            yield env.timeout(time - env.now)
            stations[0].arrive([request])

    for number, station in enumerate(stations):
        station.leave = partial(leave, number)
    env.process(source())
    env.run()
    return np.array(answered) - model.arrivals


def simpy_processes(model: Model, *, ratios: list[list[float]]) -> FloatArray:
    """Return every latency of a single station, from SimPy as its documentation writes a queue."""
    env = simpy.Environment()
    servers = simpy.Resource(env, capacity=model.stations[0].replicas)
    times, seconds = model.arrivals.tolist(), float(model.stations[0].seconds_by_batch[0])
    answered = [0.0] * len(times)

    def visit(request: int) -> Any:
        with servers.request() as turn:
            yield turn
            yield env.timeout(seconds * ratios[0][request])
        answered[request] = env.now

    def source() -> Any:
        for request, time in enumerate(times):
            yield env.timeout(time - env.now)
            env.process(visit(request))

    env.process(source())
    env.run()
    return np.array(answered) - model.arrivals


def compare(model: Model, peers: dict[str, Callable[..., FloatArray]], *, rounds: int) -> dict[str, Any]:
    """Check that all give equal latencies, then time them; return seconds by name."""
    ratios, ours = model.ratios(), model.ours()
    for name, peer in peers.items():
        np.testing.assert_allclose(peer(model, ratios=ratios), ours.latency_seconds, rtol=0, atol=1e-6, err_msg=name)
    actions: dict[str, Callable[[], object]] = {
        name: partial(peer, model, ratios=ratios) for name, peer in peers.items()
    }
    seconds = interleaved({"halve": partial(repeat, model.ours), **actions}, rounds=rounds, clock=process_time)
    return seconds | {"halve": seconds["halve"] / REPEATS}


def repeat(action: Callable[[], object]) -> None:
    """Run it again and again, as a search does; one run is too short to time between two long ones."""
    for _ in range(REPEATS):
        action()


def rate(n: int, seconds: FloatArray) -> Estimate:
    return median_interval((n / seconds).tolist())


def run(quick: bool) -> Result:
    n, n_large, rounds = (20_000, 1_000_000, 6) if quick else (100_000, 5_000_000, 9)
    result, rows = Result(), []
    peers = {"simpy_callbacks": simpy_callbacks, "simpy_processes": simpy_processes}
    single = compare(mmc(n), peers, rounds=rounds)
    several = compare(chain(n), {"simpy_callbacks": simpy_callbacks}, rounds=rounds)
    large = interleaved({"single": mmc(n_large).ours, "chain": chain(n_large).ours}, rounds=rounds, clock=process_time)
    result.peers["simpy"] = {"version": simpy.__version__, "requests_per_run": n}
    for prefix, seconds, on_large in (("", single, large["single"]), ("chain_", several, large["chain"])):
        model = "chain" if prefix else "M/M/4"
        result.figures[f"{prefix}requests_per_second"] = rate(n_large, on_large)
        result.figures[f"{prefix}requests_per_second_same_trace"] = rate(n, seconds["halve"])
        rows.append([f"{model} halve, long trace", n_large, rate(n_large, on_large), ""])
        rows.append([f"{model} halve", n, rate(n, seconds["halve"]), ""])
        for name in [name for name in seconds if name != "halve"]:
            suffix = "" if name == "simpy_processes" else "_callbacks"
            ratio = median_interval((seconds[name] / seconds["halve"]).tolist())
            result.figures[f"{prefix}ratio_vs_simpy{suffix}"] = ratio
            result.peers["simpy"][f"{prefix}requests_per_second{suffix}"] = rate(n, seconds[name])
            rows.append([f"{model} {name}", n, rate(n, seconds[name]), ratio])
    print(table(["model and tool", "requests", "requests per second [95 %]", "halve is faster by [95 %]"], rows))
    return result


if __name__ == "__main__":
    main("simulator", run, packages=("numba", "simpy", "scipy"))

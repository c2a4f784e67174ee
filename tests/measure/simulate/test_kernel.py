"""The compiled kernel equals a plain event-by-event simulation, on every policy, replica count and noise."""

import heapq
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.core import BatchPolicy
from halve.measure.simulate import Station, service_ratios, simulate


class Oracle:
    """One clock for the whole chain; everything due at a moment happens before anyone decides.

    A station holds a queue and its running batches. At each moment, station after station: finished batches
    leave in the order they started, arrivals join the queue, and while a replica is free and the policy says
    so, the oldest waiting requests become a batch.
    """

    def __init__(self, arrivals, stations, exits, ratios):
        self.stations, self.exits, self.ratios = stations, exits, ratios
        self.queues = [[] for _ in stations]  # (arrived, request), oldest first
        self.running = [[] for _ in stations]  # heap of (finish, batch number, requests)
        self.batches = [[] for _ in stations]  # (start, seconds, requests)
        self.answered_at = np.full(len(arrivals), np.nan)
        self.visits = [[] for _ in stations]
        self.clock = [(time, request) for request, time in enumerate(arrivals)]
        self.moments = list(arrivals)
        heapq.heapify(self.moments)
        while self.moments:
            self.happen(heapq.heappop(self.moments))

    def happen(self, now):
        while self.clock and self.clock[0][0] <= now:
            self.join(0, *self.clock.pop(0))
        for number in range(len(self.stations)):
            self.finish(number, now)
            while self.is_due(number, now):
                self.start(number, now)
                self.finish(number, now)

    def join(self, number, now, request):
        self.queues[number].append((now, request))
        self.visits[number].append(request)
        heapq.heappush(self.moments, now + self.stations[number].batch.max_wait_seconds)

    def finish(self, number, now):
        while self.running[number] and self.running[number][0][0] <= now:
            finish, _, requests = heapq.heappop(self.running[number])
            for request in requests:
                if self.exits[request] > number:
                    self.join(number + 1, finish, request)
                else:
                    assert np.isnan(self.answered_at[request])
                    self.answered_at[request] = finish

    def is_due(self, number, now):
        station, queue = self.stations[number], self.queues[number]
        if not queue or len(self.running[number]) == station.replicas:
            return False
        return len(queue) >= station.batch.max_batch_size or now >= queue[0][0] + station.batch.max_wait_seconds

    def start(self, number, now):
        station, queue = self.stations[number], self.queues[number]
        taken = queue[: station.batch.max_batch_size]
        del queue[: station.batch.max_batch_size]
        batch_number = len(self.batches[number])
        seconds = station.seconds_by_batch[len(taken) - 1]
        if len(self.ratios[number]):
            seconds *= self.ratios[number][batch_number]
        self.batches[number].append((now, seconds, taken))
        heapq.heappush(self.running[number], (now + seconds, batch_number, [request for _, request in taken]))
        heapq.heappush(self.moments, now + seconds)

    def waits(self, number):
        return [start - arrived for start, _, taken in self.batches[number] for arrived, _ in taken]


def times(draw, *, most):
    """Free floats, or sixteenths, which meet at the same moment all the time."""
    if draw(st.booleans()):
        return st.integers(0, int(most * 16)).map(lambda ticks: ticks / 16)
    return st.floats(0, most)


@st.composite
def chains(draw):
    n_stations = draw(st.integers(1, 3))
    stations = []
    for number in range(n_stations):
        largest = draw(st.integers(1, 5))
        seconds = draw(st.lists(times(draw, most=3), min_size=largest, max_size=largest))
        wait = draw(times(draw, most=4))
        noise = draw(st.none() | st.lists(st.floats(0.25, 4), min_size=1, max_size=4))
        stations.append(
            Station(
                name=f"s{number}",
                seconds_by_batch=np.array(seconds),
                replicas=draw(st.integers(1, 4)),
                batch=BatchPolicy(max_batch_size=largest, max_wait_seconds=wait),
                noise_ratios=None if noise is None else np.array(noise),
            )
        )
    arrivals = np.array(sorted(draw(st.lists(times(draw, most=20), min_size=1, max_size=40))))
    n = len(arrivals)
    exits = np.array(draw(st.lists(st.integers(0, n_stations - 1), min_size=n, max_size=n)))
    return arrivals, stations, exits, draw(st.integers(0, 3))


@settings(max_examples=200, deadline=None)
@given(chains())
def test_equal_to_an_event_by_event_simulation(chain):
    arrivals, stations, exits, seed = chain
    duration = float(arrivals[-1]) + 1.0
    result = simulate(arrivals, stations=stations, exits=exits, duration_seconds=duration, seed=seed)
    ratios = [
        service_ratios(station, number=number, count=len(arrivals), seed=seed)
        for number, station in enumerate(stations)
    ]
    oracle = Oracle(arrivals, stations, exits, ratios)
    np.testing.assert_allclose(result.latency_seconds, oracle.answered_at - arrivals, rtol=0, atol=1e-9)
    span = max(duration, float(oracle.answered_at.max()))
    for number, load in enumerate(result.loads):
        waits, batches = oracle.waits(number), oracle.batches[number]
        busy = sum(seconds for _, seconds, _ in batches)
        assert load.n_requests == len(waits) == int(np.sum(exits >= number))
        assert load.n_batches == len(batches)
        np.testing.assert_allclose(load.busy_seconds, busy, atol=1e-9)
        np.testing.assert_allclose(load.utilization, busy / (stations[number].replicas * span), atol=1e-9)
        if waits:
            np.testing.assert_allclose(load.mean_batch_size, len(waits) / len(batches), atol=1e-9)
            np.testing.assert_allclose(load.mean_wait_seconds, np.mean(waits), atol=1e-9)
            np.testing.assert_allclose(load.wait_p99_seconds, np.quantile(waits, 0.99), atol=1e-9)
        else:
            assert (load.mean_batch_size, load.mean_wait_seconds, load.wait_p99_seconds) == (0.0, 0.0, 0.0)


def test_it_compiles_where_no_cache_can_be_written():
    import halve.measure.simulate.kernel as kernel

    script = f"""
        import numpy as np
        source = open({str(Path(kernel.__file__))!r}).read()
        names = {{"__name__": "frozen"}}
        exec(compile(source, "<no such file>", "exec"), names)
        waits, left_at, none, no_ids = np.empty(2), np.empty(2), np.empty(0), np.empty(0, dtype=np.int32)
        zeros = np.zeros(2, dtype=np.int64)
        batches, busy = names["serve"](
            np.array([0.0, 1.0]), np.arange(2, dtype=np.int32), zeros, 0, np.array([3.0]), 0.0, 1,
            none, no_ids, waits, left_at, none, no_ids
        )
        assert (batches, busy, left_at.tolist(), waits.tolist()) == (2, 6.0, [3.0, 6.0], [0.0, 2.0])
        print("compiled")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "compiled"

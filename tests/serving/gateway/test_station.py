import threading

import numpy as np
import pytest

from halve.core import BatchPolicy, Deployment, Model, ReplicaPolicy
from halve.errors import ModelError
from halve.serving.gateway.chain import Link
from halve.serving.gateway.metrics import Metrics
from halve.serving.gateway.station import Station
from halve.serving.gateway.ticket import Ticket
from halve.testing.fakes import FakeAnswerer


def tickets(count):
    return [Ticket(np.array([n], dtype=np.float32), asked=None, index=n, key=None) for n in range(count)]


def station(load, on_batch, *, replicas=1, threads=1, max_batch_size=4):
    metrics = Metrics(prices={"m": 1.0}, stages=(), in_flight=int)
    link = Link(
        model=Model(name="m", engine="recorded"),
        deployment=Deployment(
            model="m",
            instance_type="box",
            threads=threads,
            batch=BatchPolicy(max_batch_size=max_batch_size),
            replica=ReplicaPolicy(replicas=replicas),
        ),
        accepts=None,
    )
    counters = metrics.station("m")
    return Station(link, load=load, loading=threading.Lock(), metrics=counters, on_batch=on_batch)


def test_models_are_loaded_one_at_a_time_with_the_deployments_threads():
    inside, most, asked = [], [], []

    def load(model, threads):
        inside.append(1)
        most.append(len(inside))
        asked.append((model.name, threads))
        threading.Event().wait(0.01)
        inside.pop()
        return FakeAnswerer()

    running = station(load, lambda batch, outcome: None, replicas=4, threads=2)
    for loaded in running.start():
        loaded.result(20)
    running.close()
    assert most == [1] * 4
    assert asked == [("m", 2)] * 4


def test_batches_go_to_the_listener_with_their_outcome():
    heard, done = [], threading.Event()

    def on_batch(batch, outcome):
        heard.append((batch, outcome))
        if sum(len(batch) for batch, _ in heard) == 6:
            done.set()

    running = station(lambda model, threads: FakeAnswerer(), on_batch)
    asked = tickets(6)
    running.put(asked)
    running.start()
    assert done.wait(20)
    assert running.close() == []
    assert [len(batch) for batch, _ in heard] == [4, 2]
    assert [ticket for batch, _ in heard for ticket in batch] == asked
    assert [answer.answer for _, outcome in heard for _, answer in sorted(outcome.answered.items())] == list(range(6))


def test_close_finishes_the_batch_at_hand_and_returns_the_rest():
    entered, heard = threading.Event(), []
    answerer = FakeAnswerer(seconds_per_batch=0.1, confidence=lambda payload: entered.set() or 0.9)
    running = station(lambda model, threads: answerer, lambda batch, outcome: heard.extend(batch), max_batch_size=2)
    asked = tickets(5)
    running.put(asked)
    running.start()
    assert entered.wait(20)
    left = running.close()
    assert heard + left == asked
    assert len(left) in (1, 3)
    assert answerer.is_closed
    assert running.put(asked) is False


def test_a_replica_that_cannot_load_says_why():
    def load(model, threads):
        raise ModelError("no such file.")

    running = station(load, lambda batch, outcome: None)
    (loaded,) = running.start()
    with pytest.raises(ModelError, match=r"no such file."):
        loaded.result(20)
    running.close()

"""A gateway on a loopback port, made of real answerers that need no model."""

import http.client
import json
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from halve.core import Acceptance, BatchPolicy, CachedAnswer, Deployment, Model, ReplicaPolicy, Stack, Stage
from halve.core import Gateway as Front
from halve.serving.gateway import Chain, Gateway, InputSpec, Server
from halve.testing.fakes import FakeAnswerer

ANY_INPUT = InputSpec()


@dataclass
class Loader:
    """Loads what it was given a recipe for, and remembers every replica."""

    makers: dict
    loaded: dict = field(default_factory=dict)

    def __call__(self, model, threads):
        answerer = self.makers[model.name]()
        self.loaded.setdefault(model.name, []).append(answerer)
        return answerer


class DictCache:
    """The smallest cache that is one: keeps everything, notes the clock."""

    def __init__(self):
        self.stored: dict[bytes, CachedAnswer] = {}
        self.clock: list[float] = []

    def get(self, key, *, now_seconds):
        self.clock.append(now_seconds)
        return self.stored.get(key)

    def put(self, key, answer, *, now_seconds):
        self.clock.append(now_seconds)
        self.stored[key] = answer


@pytest.fixture
def dict_cache():
    return DictCache()


def at_least(threshold):
    return lambda prediction: prediction.probabilities.max(axis=1) >= threshold


@pytest.fixture
def make_chain():
    """Return a factory of chains: `makers` from model name to a function that makes its answerer, in order."""

    def make(
        makers=None, *, max_batch_size=8, max_wait_seconds=0.0, replicas=1, cache=None, labels=(), takes=ANY_INPUT,
        threshold=0.5, price=1e-5,
    ):  # fmt: skip
        makers = makers or {"only": FakeAnswerer}
        names = list(makers)
        policy = BatchPolicy(max_batch_size=max_batch_size, max_wait_seconds=max_wait_seconds)
        sure = Acceptance(rule="maximum_probability", threshold=threshold)
        stages = [Stage(kind="model", model=name, accept=sure) for name in names[:-1]]
        stages.append(Stage(kind="model", model=names[-1]))
        if cache is not None:
            stages.insert(0, Stage(kind="exact_cache"))
        stack = Stack(
            name="demo",
            models=tuple(Model(name=name, engine="recorded") for name in names),
            stages=tuple(stages),
            deployments=tuple(
                Deployment(model=name, instance_type="box", batch=policy, replica=ReplicaPolicy(replicas=replicas))
                for name in names
            ),
            gateway=Front(instance_type="box"),
        )
        return Chain(
            stack=stack,
            load=Loader(makers),
            accepts={name: at_least(threshold) for name in names[:-1]},
            cache=cache,
            cache_key=None if cache is None else lambda payload: np.asarray(payload).tobytes(),
            labels=labels,
            usd_per_vcpu_second={"box": price},
            takes=takes,
        )

    return make


@dataclass
class Client:
    """A plain HTTP client of one server."""

    port: int
    server: Server

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def send(self, method, path, body=None, headers=None):
        """Return status and body (JSON where it is JSON)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=headers or {})
            reply = connection.getresponse()
            text = reply.read()
            is_json = reply.getheader("content-type") == "application/json"
            return reply.status, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    def infer(self, body):
        return self.send("POST", "/v2/models/demo/infer", body)

    def ask(self, *values, outputs=("label", "stage"), **extra):
        """Ask about one-value tensors; return the outputs by name."""
        tensor = {"name": "input", "shape": [len(values), 1], "datatype": "FP32", "data": list(values)}
        status, reply = self.infer({"inputs": [tensor], "outputs": [{"name": name} for name in outputs], **extra})
        assert status == 200, reply
        return {output["name"]: output["data"] for output in reply["outputs"]}


@pytest.fixture
def serving():
    """Return a function that serves a chain on a free loopback port until the test ends."""
    running = []

    def start(chain, *, limits=None, wait=True):
        server = Server(Gateway(chain, limits=limits), host="127.0.0.1", port=0)
        ready = threading.Event()
        thread = threading.Thread(target=server.run, kwargs={"ready": lambda port: ready.set()})
        thread.start()
        running.append((server, thread))
        if wait:
            assert ready.wait(20)
        return Client(server.port, server)

    yield start
    for server, thread in running:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()

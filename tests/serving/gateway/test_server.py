import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request

import numpy as np
import pytest

from halve.errors import EnvironmentFailedError, InvalidParameterError, MissingExtraError, ModelError
from halve.measure.replay import encode_bodies, free_port, replay, server_process
from halve.serving.gateway import Gateway, Server, serve
from halve.testing.fakes import FakeAnswerer


def test_a_taken_port_is_named(make_chain):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            EnvironmentFailedError, match=rf"port {port} of '127.0.0.1' must be free to listen on. Got: "
        ):
            serve(Gateway(make_chain()), host="127.0.0.1", port=port)


def test_an_address_that_is_not_ours_is_named(make_chain):
    with pytest.raises(EnvironmentFailedError, match=r"port 0 of '192.0.2.1' must be free to listen on"):
        Server(Gateway(make_chain()), host="192.0.2.1", port=0)


def test_a_port_beyond_the_last_is_refused(make_chain):
    with pytest.raises(InvalidParameterError, match=r"port must be from 0 to 65535. Got 99999"):
        Server(Gateway(make_chain()), host="127.0.0.1", port=99_999)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason(make_chain):
    def broken():
        raise ModelError("the file of model 'only' is missing.")

    with pytest.raises(ModelError, match="the file of model 'only' is missing"):
        serve(Gateway(make_chain({"only": broken})), host="127.0.0.1", port=0, ready=lambda port: pytest.fail("ready"))


def test_a_missing_library_is_named_with_its_command(make_chain, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'halve\[serve\]'"):
        Server(Gateway(make_chain()), host="127.0.0.1", port=0)


def test_a_server_is_live_before_its_models_are_loaded(make_chain, serving):
    loading, may_load = threading.Event(), threading.Event()

    def slow():
        loading.set()
        may_load.wait(20)
        return FakeAnswerer()

    client = serving(make_chain({"only": slow}), wait=False)
    assert loading.wait(20)
    assert client.send("GET", "/v2/health/live")[0] == 200
    assert client.send("GET", "/v2/health/ready") == (503, {"ready": False})
    tensor = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [3]}
    status, reply = client.infer({"inputs": [tensor]})
    assert (status, reply["error"]) == (503, "the gateway is loading and answers nothing. Try again later.")
    may_load.set()
    while client.send("GET", "/v2/health/ready")[0] != 200:
        time.sleep(0.01)
    assert client.ask(3) == {"label": [3], "stage": ["only"]}


def test_it_serves_over_ipv6(make_chain):
    try:
        server = Server(Gateway(make_chain()), host="::1", port=0)
    except EnvironmentFailedError:
        pytest.skip("this host has no IPv6 loopback")
    ready = threading.Event()
    thread = threading.Thread(target=server.run, kwargs={"ready": lambda port: ready.set()})
    thread.start()
    assert ready.wait(20)
    with socket.create_connection(("::1", server.port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


SERVER = """
    import sys
    from halve.core import BatchPolicy, Deployment, Model, Stack, Stage
    from halve.core import Gateway as Front
    from halve.serving.gateway import Chain, Gateway, serve
    from halve.testing.fakes import FakeAnswerer

    port, seconds_per_batch = int(sys.argv[1]), float(sys.argv[2])
    stack = Stack(
        name="demo",
        models=(Model(name="only", engine="recorded"),),
        stages=(Stage(kind="model", model="only"),),
        deployments=(Deployment(model="only", instance_type="box", batch=BatchPolicy(max_batch_size=4)),),
        gateway=Front(instance_type="box"),
    )
    load = lambda model, threads: FakeAnswerer(classes=100, seconds_per_batch=seconds_per_batch)
    gateway = Gateway(Chain(stack=stack, load=load, usd_per_vcpu_second={"box": 1e-5}))
    serve(gateway, host="127.0.0.1", port=port, ready=lambda port: print("ready on", port, flush=True))
    print("stopped cleanly", flush=True)
"""


def waiting_and_answered(url):
    """Return how many items wait, and how many were answered."""
    with urllib.request.urlopen(f"{url}/metrics") as reply:
        lines = [line.rsplit(" ", 1) for line in reply.read().decode().splitlines()]
    waiting = sum(float(value) for name, value in lines if name == "halve_in_flight_items")
    return waiting, sum(float(value) for name, value in lines if name.startswith("halve_answers_total"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_accepted_request_be_answered_first(number):
    port = free_port()
    argv = [sys.executable, "-c", textwrap.dedent(SERVER), str(port), "0.1"]
    payloads = [np.array([value], dtype=np.float32) for value in range(40)]
    with server_process(argv, url=f"http://127.0.0.1:{port}") as server:
        records = []

        def ask():
            records.append(
                replay(server.url, model_name="demo", arrival_seconds=np.zeros(40), bodies=encode_bodies(payloads))
            )

        client = threading.Thread(target=ask)
        client.start()
        while sum(counts := waiting_and_answered(server.url)) < 40:
            time.sleep(0.01)
        assert counts[0] > 0  # the signal comes while there is something to drain
        subprocess.run(["kill", f"-{int(number)}", str(server.pid)], check=True)
        client.join(30)
        assert server.end() == 0
        assert "stopped cleanly" in server.output_tail()
    assert records[0].failures == {}
    assert records[0].labels.tolist() == list(range(40))

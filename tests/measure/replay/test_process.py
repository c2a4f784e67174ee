import os
import sys
import textwrap
import threading

import pytest

from halve.errors import ReplayError
from halve.measure.replay import free_port, pinned, plan_cores, server_process

HAS_AFFINITY = hasattr(os, "sched_setaffinity")

SERVER = textwrap.dedent(
    """
    import http.server, json, os, sys, threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            body = json.dumps({"cores": cores, "flavour": os.environ.get("FLAVOUR", "")}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    print("about to serve", flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)


def start(program, **options):
    port = free_port()
    argv = [sys.executable, "-c", program, str(port)]
    return server_process(argv, url=f"http://127.0.0.1:{port}", **options)


def page(url):
    import json
    import urllib.request

    with urllib.request.urlopen(url) as reply:
        return json.loads(reply.read())


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_waits_until_ready_passes_the_environment_and_ends_the_server():
    with start(SERVER, env={**os.environ, "FLAVOUR": "plum"}) as server:
        assert page(server.url)["flavour"] == "plum"
        before = server.cpu_seconds()
        assert before > 0
        for _ in range(30):
            page(server.url)
        assert server.cpu_seconds() >= before
        assert server.output_tail() == "about to serve"
        server.end()
        with pytest.raises(ReplayError, match=r"the server must be running. It ended: about to serve"):
            server.cpu_seconds()
    assert not is_running(server.pid)


@pytest.mark.skipif(not HAS_AFFINITY, reason="this platform has no processor affinity")
def test_every_thread_of_a_pinned_server_is_pinned():
    core = max(os.sched_getaffinity(0))
    with start(SERVER, cores=[core]) as server:
        assert page(server.url)["cores"] == [core]


def test_it_ends_the_server_when_the_body_raises():
    with pytest.raises(ZeroDivisionError), start(SERVER) as server:
        raise ZeroDivisionError
    assert not is_running(server.pid)


def test_a_server_that_dies_is_quoted():
    program = "import sys; print('first line'); sys.exit('model.onnx is missing')"
    with (
        pytest.raises(ReplayError, match=r"ended with code 1 before it was ready: .*model.onnx is missing"),
        start(program),
    ):
        pytest.fail("it cannot become ready")


def test_a_server_that_never_gets_ready_is_ended_and_quoted():
    program = "import time; print('loading for ever', flush=True); time.sleep(60)"
    sentence = r"must be ready within 1.0 s. It was not: loading for ever"
    with pytest.raises(ReplayError, match=sentence), start(program, ready_timeout_seconds=1.0):
        pytest.fail("it cannot become ready")


def test_a_program_that_does_not_exist_is_named():
    argv = ["/no/such/program"]
    with (
        pytest.raises(ReplayError, match=r"could not be started: .*/no/such/program"),
        server_process(argv, url="http://127.0.0.1:9"),
    ):
        pytest.fail("it cannot start")


@pytest.mark.skipif(not HAS_AFFINITY, reason="this platform has no processor affinity")
def test_pinning_holds_for_this_thread_and_its_children_and_is_undone():
    before = os.sched_getaffinity(0)
    core = max(before)
    inherited = []
    with pinned([core]):
        assert os.sched_getaffinity(0) == {core}
        child = threading.Thread(target=lambda: inherited.append(os.sched_getaffinity(0)))
        child.start()
        child.join()
    assert inherited == [{core}]
    assert os.sched_getaffinity(0) == before


def test_no_cores_means_not_pinned():
    cores = os.sched_getaffinity(0) if HAS_AFFINITY else None
    with pinned([]):
        assert (os.sched_getaffinity(0) if HAS_AFFINITY else None) == cores


@pytest.mark.skipif(not HAS_AFFINITY, reason="this platform has no processor affinity")
def test_server_and_client_never_share_a_core():
    plan = plan_cores()
    usable = os.sched_getaffinity(0)
    if len(usable) == 1:
        assert (plan.server_cores, plan.client_cores) == ((), ())
    else:
        assert set(plan.server_cores) | set(plan.client_cores) == usable
        assert not set(plan.server_cores) & set(plan.client_cores)
        assert plan.note == ""
    with pinned([min(usable)]):
        alone = plan_cores()
    assert (alone.server_cores, alone.client_cores) == ((), ())
    assert alone.note == "not pinned: server and load generator share the only core"


def test_without_affinity_nothing_is_pinned_and_the_note_says_so(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    plan = plan_cores()
    assert (plan.server_cores, plan.client_cores) == ((), ())
    assert plan.note == f"not pinned: {sys.platform} has no processor affinity"


def test_a_server_that_ignores_the_request_to_stop_is_stopped(monkeypatch):
    import halve.measure.replay.process as room

    monkeypatch.setattr(room, "STOP_SECONDS", 0.3)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
    with start(program) as server:
        pass
    assert not is_running(server.pid)

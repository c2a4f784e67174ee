import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from halve.errors import ReplayError
from halve.measure.replay.process import free_port
from halve.measure.scrape import since, station_vcpu_seconds

PAGE = """# HELP halve_vcpu_seconds_total Busy vCPU seconds.
# TYPE halve_vcpu_seconds_total counter
halve_vcpu_seconds_total{station="gateway"} 1.5
halve_vcpu_seconds_total{station="teacher"} 12.25
# TYPE halve_vcpu_seconds_created gauge
halve_vcpu_seconds_created{station="gateway"} 1.7e9
"""


@pytest.fixture
def serve():
    """Serve a text at /metrics; return the URL."""
    servers = []

    def start(text):
        class Page(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                """Say nothing on stderr."""

        server = HTTPServer(("127.0.0.1", 0), Page)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_busy_seconds_of_each_station_are_read(serve):
    assert station_vcpu_seconds(serve(PAGE)) == {"gateway": 1.5, "teacher": 12.25}


def test_a_server_without_the_metric_is_named(serve):
    with pytest.raises(ReplayError, match=r"must hold halve_vcpu_seconds\. Got up\.$"):
        station_vcpu_seconds(serve("# TYPE up gauge\nup 1\n"))
    with pytest.raises(ReplayError, match=r"Got none\.$"):
        station_vcpu_seconds(serve(""))


def test_a_server_that_is_gone_is_named():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ReplayError, match=f"the metrics of {url} cannot be read: "):
        station_vcpu_seconds(url)


def test_work_between_two_readings_is_never_negative():
    before, after = {"gateway": 1.0, "gone": 2.0}, {"gateway": 1.5, "new": 0.25}
    assert since(before, after) == {"gateway": 0.5, "new": 0.25}
    assert since({"gateway": 5.0}, {"gateway": 1.0}) == {"gateway": 0.0}, "the server was started anew"

"""A chat cache on a loopback port, in front of a server that answers as its script says."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from halve.serving.chat import ChatApp, ChatFound, ChatQuestion, ChatServer, Upstream
from halve.techniques.inference.caching.semantic import Decision, SingleFlight, cacheable
from halve.testing.chat import completion


@dataclass
class Behind:
    """The server behind.

    Args:
        script: From the request's body to a dict (sent as JSON), (status, dict), bytes (the whole reply, head and
            all), or a list of parts of a stream of events, of which a callable is called and an exception cuts the
            connection.
        asked: Method, path, headers and body of every request.
    """

    script: object = lambda body: completion("hello")
    asked: list = field(default_factory=list)
    url: str = ""


class Quiet(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request, client_address):
        """A connection that is cut is part of the script."""


class Handler(BaseHTTPRequestHandler):
    """Answers as its server's script says."""

    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_GET(self):
        self.answer(None)

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body):
        self.server.behind.asked.append((self.command, self.path, dict(self.headers), body))
        said = self.server.behind.script(body)
        if isinstance(said, list):
            self.stream(said)
            return
        if isinstance(said, bytes):
            self.wfile.write(said)
            self.close_connection = True
            return
        self.page(*(said if isinstance(said, tuple) else (200, said)))

    def page(self, status, page):
        content = json.dumps(page).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-request-id", "7")
        self.end_headers()
        self.wfile.write(content)

    def stream(self, parts):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            if isinstance(part, Exception):
                self.close_connection = True
                return
            content = part() if callable(part) else part
            if content:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format, *args):
        """Say nothing."""


@pytest.fixture
def behind():
    found = Behind()
    listener = Quiet(("127.0.0.1", 0), Handler)
    listener.behind = found
    found.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield found
    listener.shutdown()
    thread.join()
    listener.server_close()


class Memory:
    """The smallest memory that is one: identical texts, and those that begin alike are near."""

    usd_per_answer = 0.5

    def __init__(self):
        self.held, self.looked, self.closed, self.error = {}, [], 0, None

    def question(self, request, *, tenant):
        text = request["messages"][-1]["content"]
        if text == "never":
            return None
        partition = json.dumps([tenant, request["model"], request["messages"][:-1]])
        return ChatQuestion(partition=partition.encode(), text=text)

    def find(self, question):
        self.looked.append(question.text)
        if self.error is not None:
            raise self.error
        import numpy as np

        vector = np.array([ord(question.text[0]), 1], np.float32)
        stored = self.held.get(question.partition, {})
        if question.text in stored:
            return ChatFound(how="exact", completion=stored[question.text], probability=1.0)
        near = next((text for text in stored if text[:4] == question.text[:4]), None)
        if near is not None:
            return ChatFound(how="semantic", completion=stored[near], probability=0.75, vector=vector)
        return ChatFound(how="miss", vector=vector)

    def storable(self, found):
        return cacheable(found)

    def remember(self, question, found, vector):
        self.held.setdefault(question.partition, {})[question.text] = found

    def close(self):
        self.closed += 1


@pytest.fixture
def memory():
    return Memory()


def near(text, neighbours, *, vector, vectors):
    """Say that what begins alike is near."""
    first = next((each for each in neighbours if each.text[:4] == text[:4]), None)
    hit = first is not None
    return Decision(hit=hit, entry=first.entry if hit else None, probability=1.0, reason="begins alike")


@dataclass(frozen=True)
class Front:
    """A client of the chat cache."""

    client: httpx2.Client
    memory: Memory
    server: ChatServer

    def ask(self, text, *, key="one", headers=None, **fields):
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
        sent = {"authorization": f"Bearer {key}", **(headers or {})}
        return self.client.post("/v1/chat/completions", json=body, headers=sent)

    def metric(self, line):
        page = self.client.get("/metrics").text
        return next((float(each.rsplit(" ", 1)[1]) for each in page.splitlines() if each.startswith(line)), 0.0)


@pytest.fixture
def front(behind):
    """Return a function that serves a chat cache in front of `behind` until the test ends."""
    running = []

    def start(*, url=None, key=None, memory=None, **options):
        memory = memory or Memory()
        application = ChatApp(
            upstream=Upstream(url or behind.url, key=key), memory=memory, flights=SingleFlight(near=near), **options
        )
        server = ChatServer(application, host="127.0.0.1", port=0)
        ready = threading.Event()
        thread = threading.Thread(target=server.run, kwargs={"ready": lambda port: ready.set()})
        thread.start()
        client = httpx2.Client(
            base_url=f"http://127.0.0.1:{server.port}",
            headers={"authorization": "Bearer one"},
            trust_env=False,
            timeout=20,
        )
        running.append((server, thread, client))
        assert ready.wait(20)
        return Front(client, memory, server)

    yield start
    for server, thread, client in running:
        client.close()
        server.stop()
        thread.join(20)
        assert not thread.is_alive()

"""A small HTTP server that does exactly as it is told, to test the load generator against."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field

import pytest


@dataclass
class Heard:
    """One request as the server saw it."""

    value: float
    arrived_seconds: float
    replied_seconds: float = 0.0


@dataclass
class Script:
    """A server whose handler decides each reply.

    `handle(heard, server)` is a coroutine returning reply bytes, or None to hang up.
    """

    handle: object
    heard: list = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                heard = Heard(body["inputs"][0]["data"][0], time.monotonic())
                self.heard.append(heard)
                reply = await self.handle(heard, self)
                if reply is None:
                    break
                heard.replied_seconds = time.monotonic()
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


def http_reply(body, *, status=200, head=b""):
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, head, len(body), body)


def answer(heard, stage="m"):
    """Return a reply whose label is the request's first value."""
    outputs = [{"name": "label", "data": [int(heard.value)]}, {"name": "stage", "data": [stage]}]
    return http_reply(json.dumps({"outputs": outputs}).encode())


@pytest.fixture
def reply_with():
    return http_reply


@pytest.fixture
def answer_to():
    return answer


async def rounds_of_the_loop():
    """Let what is under way in the loop happen, however slow the machine: rounds, not seconds."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def scripted():
    """Return a function that starts a scripted server in a thread of its own."""
    stops = []

    def start(handle):
        script, started = Script(handle), threading.Event()

        async def main():
            server = await asyncio.start_server(script._serve, "127.0.0.1", 0, backlog=1024)
            script.port = server.sockets[0].getsockname()[1]
            stop = asyncio.Event()
            stops.append((asyncio.get_running_loop(), stop, thread))
            started.set()
            await stop.wait()
            server.close()
            await rounds_of_the_loop()  # a connection accepted just now gets its handler, which closes it
            handlers = asyncio.all_tasks() - {asyncio.current_task()}
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
            await rounds_of_the_loop()  # an aborted transport closes its socket in the next

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert started.wait(20)
        return script

    yield start
    for loop, stop, thread in stops:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()

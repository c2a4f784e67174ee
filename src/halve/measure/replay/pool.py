"""Keep-alive connections to one server, opened as requests need them."""

import asyncio
from collections import deque
from typing import final

from halve.measure.replay.connection import Connection, Exchange


@final
class Pool:
    """Gives each exchange a connection: an idle one, a new one, or the next that becomes free.

    Args:
        host, port: The server.
        path: Path that every request posts to.
        loop: The event loop that everything runs on.
        max_connections: Never more than these.
    """

    def __init__(
        self, host: str, port: int, *, path: str, loop: asyncio.AbstractEventLoop, max_connections: int
    ) -> None:
        self._host, self._port, self._loop, self._max = host, port, loop, max_connections
        start = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        self._head_start = f"{start}Content-Length: ".encode()
        self._heads: dict[int, bytes] = {}
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = 0  # not the number of tasks: a task ends a little later than its connection opens
        self._waiting: deque[Exchange] = deque()
        self.most_connections = 0

    def submit(self, exchange: Exchange) -> None:
        """Send as soon as there is a connection; at once if one is idle."""
        if self._idle:
            self._send(self._idle.pop(), exchange)
            return
        self._waiting.append(exchange)
        self._connect_if_needed()

    def cancel(self, exchange: Exchange) -> None:
        """Forget an exchange; a connection that it occupies is dropped, since its reply may still come."""
        for connection in self._open:
            if connection.exchange is exchange:
                connection.abort()
                self._open.discard(connection)
                self._connect_if_needed()
                return

    async def close(self) -> None:
        """Drop every connection, also those still on their way, and let their sockets close."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._open:
            connection.abort()
        self._open.clear()
        self._idle.clear()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next round of the loop

    def opened(self, connection: Connection) -> None:
        """Use a new connection."""
        self._opening -= 1
        self._open.add(connection)
        self.most_connections = max(self.most_connections, len(self._open))
        self.freed(connection)

    def freed(self, connection: Connection) -> None:
        """Give a free connection the request that has waited longest."""
        while self._waiting:
            exchange = self._waiting.popleft()
            if not exchange.is_settled:
                self._send(connection, exchange)
                return
        self._idle.append(connection)

    def lost(self, connection: Connection, exchange: Exchange | None, reason: str) -> None:
        """Fail the exchange that was on it, or ask again once if the server merely tired of an idle connection."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if exchange is None or exchange.is_settled:
            self._connect_if_needed()
        elif connection.replies > 0 and not exchange.is_retry:
            exchange.is_retry = True
            self.submit(exchange)
        else:
            exchange.failed(reason)
            self._connect_if_needed()

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        length = len(exchange.body)
        head = self._heads.get(length)
        if head is None:
            head = self._heads[length] = self._head_start + b"%d\r\n\r\n" % length
        connection.send(exchange, head)

    def _connect_if_needed(self) -> None:
        """Open one connection if more requests wait than connections are on their way."""
        if self._opening < len(self._waiting) and len(self._open) + self._opening < self._max:
            self._opening += 1
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: Connection(self), self._host, self._port)
        except OSError as error:
            self._opening -= 1
            while self._waiting:
                exchange = self._waiting.popleft()
                if not exchange.is_settled:
                    exchange.failed(f"no connection: {type(error).__name__}")
                    break
            self._connect_if_needed()

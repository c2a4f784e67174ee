"""One item on its way through the chain, and the request it belongs to."""

import asyncio
from typing import Protocol, final

from halve.core import Payload
from halve.errors import AnswerError, HalveError
from halve.serving.gateway.chain import Answered


@final
class Asked:
    """A request: one or more items, and the future that its connection awaits. Lives on the event loop."""

    __slots__ = ("_answers", "_error", "_open", "future")

    def __init__(self, size: int, future: "asyncio.Future[list[Answered]]") -> None:
        self._answers: list[Answered | None] = [None] * size
        self._open = size
        self.future = future
        self._error: HalveError | None = None

    def settle(self, index: int, result: Answered | HalveError) -> None:
        """Record what became of one item; the last one resolves the future, with the first error if any."""
        if isinstance(result, Answered):
            self._answers[index] = result
        else:
            self._error = self._error or _placed(result, index)
        self._open -= 1
        if self._open or self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result([answer for answer in self._answers if answer is not None])


def _placed(error: HalveError, index: int) -> HalveError:
    """Return the error with the item's place in its request, not in its batch."""
    return AnswerError(error.model, index=index, cause=error.cause) if isinstance(error, AnswerError) else error


class Waiting(Protocol):
    """Who hears what became of an item."""

    def settle(self, index: int, result: Answered | HalveError) -> None:
        """Record what became of one item."""
        ...


@final
class Ticket:
    """One item: its payload, its place in its request, and its cache key if the chain has a cache."""

    __slots__ = ("asked", "index", "key", "payload")

    def __init__(self, payload: Payload, *, asked: Waiting, index: int, key: bytes | None) -> None:
        self.payload, self.asked, self.index, self.key = payload, asked, index, key

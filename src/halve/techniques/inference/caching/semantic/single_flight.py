"""Requests that wait for the same answer wait for one call: identical ones, and near-identical ones too.

The first request leads: its work is done. What comes while it runs, in the same partition, with the same text or one
that a decision finds near enough, waits for its result. Nothing is kept after that: an error reaches all that waited
and is then forgotten. A leader that is cancelled takes nobody with it: those that waited look again, in their order, so
that the first of them leads with its own work, and the others are decided about anew, by that one's text.

All methods run on one event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Generic, Protocol, TypeVar, cast, final

import numpy as np

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.neighbour import Decision, Neighbour
from halve.techniques.inference.caching.semantic.store import FloatArray, unit

T = TypeVar("T")


class Near(Protocol):
    """Whether a request in flight is near enough; `HitPolicy.same_words` is one."""

    def __call__(
        self, text: str, neighbours: Sequence[Neighbour], *, vector: FloatArray, vectors: FloatArray
    ) -> Decision:
        """Decide.

        Args:
            text: The question.
            neighbours: Requests in flight by falling cosine. Answers are not known yet: each has one of its own.
            vector: Of the question, (d,), of length 1.
            vectors: Of the requests in flight, (n, d), of length 1.
        """
        ...


_LOOK_AGAIN: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed(Generic[T]):
    """A result, and how it was come by.

    Args:
        value: The result.
        led: Whether this request's own work made it.
        text: Of the request whose work made it.
    """

    value: T
    led: bool
    text: str


@dataclass(eq=False)
class _Flight:
    number: int
    partition: bytes
    text: str
    vector: FloatArray | None
    waiting: "list[asyncio.Future[object]]" = field(default_factory=list)

    def tell(self, outcome: object) -> None:
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(outcome)

    def fail(self, error: Exception) -> None:
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # who is cancelled at this moment never fetches it, and asyncio would complain


@final
class SingleFlight(Generic[T]):
    """Merges requests in flight.

    Args:
        near: Whether a request in flight is near enough; None merges identical texts only.
        neighbours: Requests in flight that it is asked about, >= 1.

    Raises:
        InvalidParameterError: If a value is outside its range.
    """

    def __init__(self, *, near: Near | None = None, neighbours: int = 8) -> None:
        if neighbours < 1:
            raise InvalidParameterError("neighbours", rule="at least 1", value=neighbours)
        self._near, self._neighbours = near, neighbours
        self._flights: dict[bytes, dict[str, _Flight]] = {}
        self._numbers = count(1)
        self.led = self.merged_identical = self.merged_near = 0

    def __len__(self) -> int:
        """Calls in flight."""
        return sum(len(flights) for flights in self._flights.values())

    async def do(
        self, partition: bytes, text: str, work: Callable[[], Awaitable[T]], *, vector: FloatArray | None = None
    ) -> Landed[T]:
        """Return the result of `work`, or of the work of a request in flight that asks the same.

        Args:
            partition: From `partition_key`; requests of different partitions never meet.
            text: The question.
            work: Makes the result; called at most once, and only if this request leads.
            vector: Of the question, (d,); without it only identical texts are merged.

        Raises:
            Exception: What the work raised that this request led or waited for.
        """
        direction = unit(vector) if vector is not None and self._near is not None else None
        while True:
            flight = self._joined(partition, text, direction)
            if flight is None:
                return await self._lead(partition, text, work, direction)
            waiter: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            flight.waiting.append(waiter)
            outcome = await waiter
            if outcome is not _LOOK_AGAIN:
                self.merged_identical += flight.text == text
                self.merged_near += flight.text != text
                return Landed(value=cast("T", outcome), led=False, text=flight.text)

    async def _lead(
        self, partition: bytes, text: str, work: Callable[[], Awaitable[T]], direction: FloatArray | None
    ) -> Landed[T]:
        flight = _Flight(next(self._numbers), partition, text, direction)
        self._flights.setdefault(partition, {})[text] = flight
        self.led += 1
        try:
            value = await work()
        except Exception as error:
            self._land(flight)
            flight.fail(error)
            raise
        except BaseException:  # cancelled, or the process is told to stop: the others go on without this one
            self._land(flight)
            flight.tell(_LOOK_AGAIN)
            raise
        self._land(flight)
        flight.tell(value)
        return Landed(value=value, led=True, text=text)

    def _land(self, flight: _Flight) -> None:
        flights = self._flights[flight.partition]
        del flights[flight.text]
        if not flights:
            del self._flights[flight.partition]

    def _joined(self, partition: bytes, text: str, direction: FloatArray | None) -> _Flight | None:
        """Return the flight in this partition that a text may join."""
        flights = self._flights.get(partition)
        if not flights:
            return None
        if text in flights:
            return flights[text]
        if self._near is None or direction is None:
            return None
        return self._nearest(text, direction, [each for each in flights.values() if each.vector is not None])

    def _nearest(self, text: str, direction: FloatArray, flights: list[_Flight]) -> _Flight | None:
        if not flights or self._near is None:
            return None
        vectors = np.stack([each.vector for each in flights if each.vector is not None])
        cosines = vectors @ direction
        order = np.lexsort((np.asarray([each.number for each in flights]), -cosines))[: self._neighbours]
        neighbours = [
            Neighbour(
                entry=flights[place].number,
                text=flights[place].text,
                answer=f"of request {flights[place].number}",
                cosine=float(np.clip(cosines[place], -1.0, 1.0)),
            )
            for place in order.tolist()
        ]
        decision = self._near(text, neighbours, vector=direction, vectors=vectors[order])
        return next((each for each in flights if decision.hit and each.number == decision.entry), None)

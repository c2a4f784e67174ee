"""The chain, running: cache, then each model's queue and replicas; the first answer that stands wins.

The event loop owns requests and the cache. Replicas own models. An item that a model declines goes from
that replica straight into the next model's queue; the event loop hears of it only when it is settled.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import final

from halve.core import CachedAnswer, Payload
from halve.errors import EnvironmentFailedError, HalveError
from halve.serving.gateway.chain import CACHE_STAGE, Answered, Chain, Limits
from halve.serving.gateway.isolate import Outcome
from halve.serving.gateway.metrics import GATEWAY, Metrics
from halve.serving.gateway.remembering import Remembering
from halve.serving.gateway.shadowing import SecondOpinion, Shadowing
from halve.serving.gateway.station import OnBatch, Station
from halve.serving.gateway.ticket import Asked, Ticket

Settled = list[tuple[Ticket, Answered | HalveError]]


@final
class Gateway:
    """A chain that answers. All methods run on one event loop.

    Args:
        chain: The stack and what its stages need.
        limits: What is refused.
    """

    def __init__(self, chain: Chain, *, limits: Limits | None = None) -> None:
        self.chain, self.limits = chain, limits or Limits()
        links = chain.links
        prices = {link.model.name: chain.usd_per_vcpu_second[link.deployment.instance_type] for link in links}
        prices[GATEWAY] = chain.usd_per_vcpu_second[chain.stack.gateway.instance_type]
        self.metrics = Metrics(
            prices=prices,
            stages=(CACHE_STAGE, *(link.model.name for link in links)),
            in_flight=lambda: self._in_flight,
        )
        self._stations: list[Station] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_flight = 0
        self._following: dict[bytes, list[Ticket]] = {}
        self._state = "loading"
        self._drained = asyncio.Event()
        self._memory = None if chain.memory is None else Remembering(chain.memory)
        self._last = links[-1].model.name
        self._shadowing: Shadowing | None = None
        if chain.watch is not None and len(links) > 1:
            self._shadowing = Shadowing(
                chain.watch, last=self._last, ask=self._ask_twice, compared=self.metrics.watched(chain.watch)
            )

    @property
    def is_ready(self) -> bool:
        """Whether every replica is loaded and requests are taken."""
        return self._state == "ready"

    async def start(self) -> None:
        """Load every replica of every model.

        Raises:
            HalveError: The first reason why a model could not be loaded; everything else is closed again.
        """
        self._loop = asyncio.get_running_loop()
        loading = threading.Lock()
        links = self.chain.links
        for number, link in enumerate(links):
            station = Station(
                link,
                load=self.chain.load,
                loading=loading,
                metrics=self.metrics.station(link.model.name),
                on_batch=self._on_batch(number),
            )
            self._stations.append(station)
        loaded = [asyncio.wrap_future(future) for station in self._stations for future in station.start()]
        results = await asyncio.gather(*loaded, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                await self.close()
                raise result
        if self._state == "loading":
            self._state = "ready"

    async def answer(self, payloads: Sequence[Payload]) -> list[Answered]:
        """Return one answer per payload, in order.

        Raises:
            AnswerError: If a model fails on a payload; the index is its position here.
            EnvironmentFailedError: If the gateway is loading, overloaded or stopping.
        """
        self._admit(len(payloads))
        asked = Asked(len(payloads), asyncio.get_running_loop().create_future())
        tickets = self._past_the_cache(payloads, asked)
        if tickets:
            self._in_flight += len(tickets)
            if not self._stations[0].put(tickets):
                self._settle([(ticket, _stopping()) for ticket in tickets])
        return await asked.future

    def _admit(self, count: int) -> None:
        if self._state != "ready":
            raise EnvironmentFailedError(f"the gateway is {self._state} and answers nothing. Try again later.")
        limit = self.limits.in_flight_items
        if self._in_flight + count > limit:
            raise EnvironmentFailedError(
                f"the gateway is overloaded: items in flight must be at most {limit}. "
                f"Got {self._in_flight} and {count} more. Try again later."
            )

    def _past_the_cache(self, payloads: Sequence[Payload], asked: Asked) -> list[Ticket]:
        cache, cache_key = self.chain.cache, self.chain.cache_key
        if cache is None or cache_key is None:
            return [Ticket(payload, asked=asked, index=index, key=None) for index, payload in enumerate(payloads)]
        tickets: list[Ticket] = []
        now = time.monotonic()
        for index, payload in enumerate(payloads):
            key = cache_key(payload)
            stored = cache.get(key, now_seconds=now)
            followers = self._following.get(key)
            self.metrics.looked_up(hit=stored is not None or followers is not None)
            if stored is None:
                ticket = Ticket(payload, asked=asked, index=index, key=key)
                if followers is not None:  # the identical item is being answered: wait for that
                    followers.append(ticket)
                    continue
                self._following[key] = []
                tickets.append(ticket)
            else:
                self.metrics.answered(CACHE_STAGE)
                asked.settle(index, _from_cache(stored))
                if self._shadowing is not None:
                    self._shadowing.answered(payload, stored.answer, stage=stored.stage)
        return tickets

    def _on_batch(self, number: int) -> OnBatch:
        """Return what the replicas of one station do with a batch; it runs in their threads."""

        def on_batch(tickets: Sequence[Ticket], outcome: Outcome) -> None:
            settled: Settled = [(tickets[index], answered) for index, answered in outcome.answered.items()]
            settled.extend((tickets[index], error) for index, error in outcome.failed.items())
            if outcome.declined:
                passed_on = [tickets[index] for index in sorted(outcome.declined)]
                if not self._stations[number + 1].put(passed_on):
                    settled.extend((ticket, _stopping()) for ticket in passed_on)
            if settled and self._loop is not None:
                self._loop.call_soon_threadsafe(self._settle, settled)

        return on_batch

    def _settle(self, settled: Settled) -> None:
        for ticket, result in settled:
            if isinstance(ticket.asked, SecondOpinion):
                ticket.asked.settle(ticket.index, result)
                continue
            if isinstance(result, Answered):
                self.metrics.answered(result.stage)
                if self._shadowing is not None:
                    self._shadowing.answered(ticket.payload, result.answer, stage=result.stage)
                if self._memory is not None and result.stage == self._last:
                    self._memory.put(ticket.payload, _to_cache(result))
                if ticket.key is not None and self.chain.cache is not None:
                    self.chain.cache.put(ticket.key, _to_cache(result), now_seconds=time.monotonic())
            ticket.asked.settle(ticket.index, result)
            for follower in self._following.pop(ticket.key, ()) if ticket.key is not None else ():
                self._follow(follower, result)
        self._in_flight -= len(settled)
        if self._in_flight == 0:
            self._drained.set()

    def _ask_twice(self, ticket: Ticket) -> bool:
        """Queue a second opinion, unless requests have most of the room there is."""
        if self._state != "ready" or 2 * self._in_flight > self.limits.in_flight_items:
            return False
        self._in_flight += 1
        if self._stations[-1].put([ticket]):
            return True
        self._in_flight -= 1
        return False

    def _follow(self, follower: Ticket, result: Answered | HalveError) -> None:
        """Give an item what its identical leader got; an error reaches both."""
        if isinstance(result, Answered):
            self.metrics.answered(CACHE_STAGE)
            result = Answered(result.answer, result.probabilities, CACHE_STAGE)
        follower.asked.settle(follower.index, result)

    async def close(self) -> None:
        """Take nothing new, answer what was taken (at most `limits.drain_seconds`), stop every replica."""
        self._state = "stopping"
        if self._in_flight:
            self._drained.clear()
            with suppress(TimeoutError):  # what is still waiting then is refused below
                await asyncio.wait_for(self._drained.wait(), self.limits.drain_seconds)
        loop = asyncio.get_running_loop()
        for station in self._stations:
            left = await loop.run_in_executor(None, station.close)
            self._settle([(ticket, _stopping()) for ticket in left])
        if self._memory is not None:
            await loop.run_in_executor(None, self._memory.close)


def _stopping() -> EnvironmentFailedError:
    return EnvironmentFailedError("the gateway is stopping and answers nothing. Try again later.")


def _to_cache(answered: Answered) -> CachedAnswer:
    rows = answered.probabilities
    probabilities = None if rows is None else tuple(float(value) for value in rows.tolist())
    return CachedAnswer(answer=answered.answer, probabilities=probabilities, stage=answered.stage)


def _from_cache(stored: CachedAnswer) -> Answered:
    import numpy as np

    probabilities = None if stored.probabilities is None else np.asarray(stored.probabilities, dtype=np.float32)
    return Answered(stored.answer, probabilities, CACHE_STAGE)

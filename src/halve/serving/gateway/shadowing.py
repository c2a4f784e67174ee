"""Second opinions: a random share of early answers is asked of the last model too, after the client has its answer."""

import logging
import random
from collections.abc import Callable
from typing import final

from halve.core import EarlyWatch, Payload
from halve.errors import HalveError
from halve.serving.gateway.chain import Answered
from halve.serving.gateway.ticket import Ticket

Ask = Callable[[Ticket], bool]
"""Queues a ticket for the last model; False if it is too busy."""

_log = logging.getLogger("halve.serving")


@final
class SecondOpinion:
    """Stands where a request would: hears what the last model says of an item that was answered already."""

    __slots__ = ("_first", "_shadowing")

    def __init__(self, shadowing: "Shadowing", first: int | str) -> None:
        self._shadowing, self._first = shadowing, first

    def settle(self, index: int, result: Answered | HalveError) -> None:
        """Compare; an item that the last model fails on says nothing."""
        if isinstance(result, Answered):
            self._shadowing.compared(same=result.answer == self._first)


@final
class Shadowing:
    """Chooses what is asked twice and tells the watch. Lives on the event loop.

    Args:
        watch: Told of every comparison.
        last: Name of the last model.
        ask: Queues a ticket for it.
        compared: Counts one comparison.
        seed: Of the choice.
    """

    def __init__(
        self, watch: EarlyWatch, *, last: str, ask: Ask, compared: Callable[[bool], None], seed: int | None = None
    ) -> None:
        self._watch, self._last, self._ask, self._count = watch, last, ask, compared
        self._random = random.Random(seed)
        self._skipped = 0

    def answered(self, payload: Payload, answer: int | str, *, stage: str) -> None:
        """Take one answer that was given; `stage` is who gave it first, also when it came from a cache."""
        chosen = stage != self._last and self._random.random() < self._watch.share
        ticket = Ticket(payload, asked=SecondOpinion(self, answer), index=0, key=None)
        if not (chosen and self._ask(ticket)):
            self._skipped += 1

    def compared(self, *, same: bool) -> None:
        """Tell the watch of one comparison, and the log of what follows."""
        skipped, self._skipped = self._skipped, 0
        self._count(same)
        changed = self._watch.shadow(same=same, skipped=skipped)
        if changed is not None:
            _log.warning("%s", changed)

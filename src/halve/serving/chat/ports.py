"""What the chat cache is made of: a memory, and what merges requests in flight. Both are passed in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatQuestion:
    """What of a request a cache may vary, and what must be the same.

    Args:
        partition: All else of the request, hashed: answers never cross to another.
        text: The last user text.
    """

    partition: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChatFound:
    """What a look-up found.

    Args:
        how: An identical text, a near one, or nothing.
        completion: The stored one; None for a miss.
        probability: That it is right, in [0, 1].
        vector: Of the question, if it was made.
    """

    how: Literal["exact", "semantic", "miss"]
    completion: Mapping[str, Any] | None = None
    probability: float = 0.0
    vector: NDArray[np.float32] | None = None


class ChatMemory(Protocol):
    """A cache of chat completions. `find` is called from one thread at a time, `remember` from another."""

    @property
    def usd_per_answer(self) -> float:
        """What one call of the server behind costs; 0 if unknown."""
        ...

    def question(self, request: Mapping[str, Any], *, tenant: str) -> ChatQuestion | None:
        """Return what is asked; None if the request must go to the server behind."""
        ...

    def find(self, question: ChatQuestion) -> ChatFound:
        """Look up a question. May take milliseconds."""
        ...

    def storable(self, completion: Mapping[str, Any]) -> bool:
        """Return whether a completion may answer another request: one whole text, no error, no tool call."""
        ...

    def remember(
        self, question: ChatQuestion, completion: Mapping[str, Any], vector: NDArray[np.float32] | None
    ) -> None:
        """Store a completion; it is on disk when this returns."""
        ...

    def close(self) -> None:
        """Write what is noted and let go. May be called twice."""
        ...


class Landed(Protocol):
    """A result, and how it was come by."""

    @property
    def value(self) -> Any:
        """The result."""
        ...

    @property
    def led(self) -> bool:
        """Whether this request's own work made it."""
        ...


class Flights(Protocol):
    """Merges requests in flight; called on one event loop."""

    async def do(
        self, partition: bytes, text: str, work: Callable[[], Awaitable[Any]], *, vector: Any | None = None
    ) -> Landed:
        """Return the result of `work`, or of the work of a request in flight that asks the same."""
        ...

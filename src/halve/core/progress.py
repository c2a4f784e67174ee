"""Progress that says nothing: the default in Python, where the caller may pass bars of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from halve.core.ports import Advance


class Silent:
    """Implements `core.Progress` without output."""

    @contextmanager
    def task(self, description: str, *, total: int) -> Iterator[Advance]:
        """Open nothing."""

        def advance(steps: int = 1) -> None:
            del steps

        yield advance

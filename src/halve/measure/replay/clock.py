"""An event loop whose timers fire when they should.

asyncio on Linux waits in epoll, whose timeout counts whole milliseconds and is rounded up: every request would
leave up to a millisecond late. Waiting for the epoll descriptor itself in select(2) counts microseconds.
"""

import asyncio
import selectors
import sys

FD_SETSIZE = 1024


def precise_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop with timers of microsecond resolution."""
    return asyncio.SelectorEventLoop(_precise_selector())


if sys.platform == "linux":
    import select

    class _PreciseSelector(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    def _precise_selector() -> selectors.BaseSelector:
        selector = _PreciseSelector()
        if selector.fileno() < FD_SETSIZE:
            return selector
        selector.close()
        return selectors.DefaultSelector()  # select(2) cannot watch descriptors this high

else:

    def _precise_selector() -> selectors.BaseSelector:
        return selectors.DefaultSelector()  # kqueue counts nanoseconds already

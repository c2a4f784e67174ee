import asyncio
import selectors
import socket

from halve.measure.replay.clock import precise_event_loop


def test_timers_fire_in_order_and_never_early():
    fired = []

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        start = loop.time()
        for delay in (0.004, 0.0011, 0.0023):
            loop.call_at(start + delay, lambda delay=delay: fired.append((delay, loop.time() - start)))
        loop.call_at(start + 0.005, done.set_result, None)
        await done

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        runner.run(main())
    assert [delay for delay, _ in fired] == [0.0011, 0.0023, 0.004]
    assert all(elapsed >= delay for delay, elapsed in fired)


def test_sockets_are_heard_while_timers_wait():
    async def main():
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(3600, lambda: None)
        right.sendall(b"hello\n")
        line = await reader.readline()
        timer.cancel()
        writer.close()
        await writer.wait_closed()
        right.close()
        return line

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        assert runner.run(asyncio.wait_for(main(), 20)) == b"hello\n"


def test_it_still_is_the_platforms_best_selector():
    loop = precise_event_loop()
    try:
        assert isinstance(loop._selector, selectors.DefaultSelector)
    finally:
        loop.close()

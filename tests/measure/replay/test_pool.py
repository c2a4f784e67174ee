import asyncio

from halve.measure.replay.bodies import encode_bodies
from halve.measure.replay.connection import Exchange
from halve.measure.replay.pool import Pool


def drive(script, use, *, max_connections=4):
    """Run `use(pool, ask)` on a pool of connections to a scripted server; `ask` submits one value."""

    async def main():
        loop = asyncio.get_running_loop()
        pool = Pool("127.0.0.1", script.port, path="/infer", loop=loop, max_connections=max_connections)

        def ask(value):
            settled = asyncio.Event()
            exchange = Exchange(encode_bodies([[value]])[0], on_settled=settled.set)
            pool.submit(exchange)
            return exchange, settled

        try:
            return await asyncio.wait_for(use(pool, ask), 20)
        finally:
            await pool.close()

    return asyncio.run(main())


def test_requests_beyond_the_last_connection_go_in_order(scripted, answer_to):
    async def handle(heard, server):
        return answer_to(heard)

    async def use(pool, ask):
        asked = [ask(value) for value in range(9)]
        for _, settled in asked:
            await settled.wait()
        return [exchange.status for exchange, _ in asked], pool.most_connections

    script = scripted(handle)
    assert drive(script, use, max_connections=1) == ([200] * 9, 1)
    assert [heard.value for heard in script.heard] == list(range(9))


def test_an_idle_connection_is_used_before_a_new_one_is_opened(scripted, answer_to):
    async def handle(heard, server):
        return answer_to(heard)

    async def use(pool, ask):
        for value in range(5):
            await ask(value)[1].wait()
        return pool.most_connections

    assert drive(scripted(handle), use) == 1


def test_a_cancelled_exchange_gives_its_place_to_the_next_on_a_new_connection(scripted, answer_to):
    async def handle(heard, server):
        if heard.value == 0:
            await asyncio.sleep(30)
        return answer_to(heard)

    async def use(pool, ask):
        (first, _), (second, settled) = ask(0), ask(1)
        while first.sent_seconds == 0:
            await asyncio.sleep(0.001)
        first.failed("timeout")
        pool.cancel(first)
        await settled.wait()
        return first.reason, second.status

    script = scripted(handle)
    assert drive(script, use, max_connections=1) == ("timeout", 200)
    assert script.connections == 2


def test_cancelling_what_waits_unsent_drops_no_connection(scripted, answer_to):
    async def handle(heard, server):
        await asyncio.sleep(0.02)
        return answer_to(heard)

    async def use(pool, ask):
        (first, settled), (second, _) = ask(0), ask(1)
        second.failed("timeout")
        pool.cancel(second)
        await settled.wait()
        return first.status, second.sent_seconds

    script = scripted(handle)
    assert drive(script, use, max_connections=1) == (200, 0.0)
    assert script.connections == 1

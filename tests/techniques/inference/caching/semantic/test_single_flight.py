import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.neighbour import Decision
from halve.techniques.inference.caching.semantic.single_flight import SingleFlight

P, Q = b"p" * 32, b"q" * 32


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 20))


def at(degrees):
    return np.asarray([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def within(degrees):
    """Near is what lies within so many degrees."""

    def near(text, neighbours, *, vector, vectors):
        assert vectors @ vector == pytest.approx([each.cosine for each in neighbours], abs=1e-6)
        assert len({each.answer for each in neighbours}) == len(neighbours)  # none is known: they agree with nobody
        first = neighbours[0]
        hit = first.cosine >= np.cos(np.radians(degrees))
        return Decision(hit=bool(hit), entry=first.entry if hit else None, probability=1.0, reason="angle")

    return near


class Upstream:
    """Counts calls; each ends when told to."""

    def __init__(self):
        self.calls, self.ends = [], {}

    def work(self, name, error=None):
        async def call():
            self.calls.append(name)
            self.ends[name] = asyncio.Event()
            await self.ends[name].wait()
            if error is not None:
                raise error
            return f"answer to {name}"

        return call


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_thousand_identical_requests_are_one_call():
    async def main():
        flight, upstream = SingleFlight(), Upstream()
        tasks = [asyncio.create_task(flight.do(P, "hi", upstream.work("hi"))) for _ in range(1_000)]
        await settle()
        assert len(flight) == 1
        upstream.ends["hi"].set()
        landed = await asyncio.gather(*tasks)
        assert upstream.calls == ["hi"]
        assert {each.value for each in landed} == {"answer to hi"}
        assert sum(each.led for each in landed) == 1
        assert (flight.led, flight.merged_identical, flight.merged_near, len(flight)) == (1, 999, 0, 0)

    run(main)


def test_near_requests_join_the_nearest_and_far_ones_do_not():
    async def main():
        flight, upstream = SingleFlight(near=within(10)), Upstream()
        asked = {"zero": 0, "five": 5, "twelve": 12, "thirty": 30, "seven": 7}
        tasks = {
            name: asyncio.create_task(flight.do(P, name, upstream.work(name), vector=3 * at(degrees)))
            for name, degrees in asked.items()
        }
        await settle()
        assert upstream.calls == ["zero", "twelve", "thirty"]
        for end in upstream.ends.values():
            end.set()
        landed = {name: await task for name, task in tasks.items()}
        assert {name: each.text for name, each in landed.items()} == {
            "zero": "zero",
            "five": "zero",
            "twelve": "twelve",
            "thirty": "thirty",
            "seven": "twelve",
        }
        assert landed["seven"].value == "answer to twelve"
        assert (flight.led, flight.merged_identical, flight.merged_near) == (3, 0, 2)

    run(main)


def test_partitions_never_meet():
    async def main():
        flight, upstream = SingleFlight(near=within(180)), Upstream()
        tasks = [asyncio.create_task(flight.do(part, "hi", upstream.work(part), vector=at(0))) for part in (P, Q, P, Q)]
        await settle()
        assert upstream.calls == [P, Q]
        for end in upstream.ends.values():
            end.set()
        assert [(await task).value for task in tasks] == [f"answer to {part}" for part in (P, Q, P, Q)]

    run(main)


def test_without_a_vector_only_identical_texts_meet():
    async def main():
        flight, upstream = SingleFlight(near=within(180)), Upstream()
        given_ = [("b", None), ("a", at(0)), ("b", at(90)), ("c", None)]
        tasks = [asyncio.create_task(flight.do(P, text, upstream.work(text), vector=v)) for text, v in given_]
        await settle()
        assert upstream.calls == ["b", "a", "c"]
        for end in upstream.ends.values():
            end.set()
        assert [(await task).led for task in tasks] == [True, True, False, True]

    run(main)


def test_an_error_reaches_all_and_is_forgotten():
    async def main():
        flight, upstream = SingleFlight(), Upstream()
        error = RuntimeError("upstream is down")
        tasks = [asyncio.create_task(flight.do(P, "hi", upstream.work("first", error))) for _ in range(3)]
        await settle()
        tasks[2].cancel()
        upstream.ends["first"].set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:2] == [error, error]
        assert isinstance(results[2], asyncio.CancelledError)
        again = asyncio.create_task(flight.do(P, "hi", upstream.work("second")))
        await settle()
        upstream.ends["second"].set()
        assert (await again).value == "answer to second"

    run(main)


def test_a_cancelled_leader_hands_over_to_the_first_that_waits():
    async def main():
        flight, upstream = SingleFlight(), Upstream()
        tasks = [asyncio.create_task(flight.do(P, "hi", upstream.work(number))) for number in range(4)]
        await settle()
        tasks[1].cancel()
        tasks[0].cancel()
        await settle()
        assert upstream.calls == [0, 2]
        assert len(flight) == 1
        upstream.ends[2].set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in results] == [True, True, False, False]
        assert [(each.value, each.led) for each in results[2:]] == [("answer to 2", True), ("answer to 2", False)]

    run(main)


def test_leader_and_heir_cancelled_at_once_leave_the_third():
    async def main():
        flight, upstream = SingleFlight(), Upstream()
        tasks = [asyncio.create_task(flight.do(P, "hi", upstream.work(number))) for number in range(3)]
        await settle()
        tasks[0].cancel()
        await asyncio.sleep(0)  # the heir is told, and has not run yet
        tasks[1].cancel()
        await settle()
        upstream.ends[2].set()
        assert (await tasks[2]).value == "answer to 2"
        assert len(flight) == 0

    run(main)


def test_after_a_cancelled_leader_nearness_is_decided_anew():
    """Five and minus five are near zero, and not near each other."""

    async def main():
        flight, upstream = SingleFlight(near=within(6)), Upstream()
        asked = {"zero": 0, "five": 5, "minus five": -5, "six": 6}
        tasks = {
            name: asyncio.create_task(flight.do(P, name, upstream.work(name), vector=at(degrees)))
            for name, degrees in asked.items()
        }
        await settle()
        assert upstream.calls == ["zero"]
        tasks["zero"].cancel()
        await settle()
        assert upstream.calls == ["zero", "five", "minus five"]
        for end in upstream.ends.values():
            end.set()
        assert {name: (await tasks[name]).text for name in ("five", "minus five", "six")} == {
            "five": "five",
            "minus five": "minus five",
            "six": "five",
        }

    run(main)


class Crowd:
    """Requests whose work ends, fails or is cancelled by orders; no text may be in flight twice."""

    def __init__(self):
        self.flight, self.tasks, self.running = SingleFlight(), [], {}

    def work(self, text):
        async def call():
            assert text not in self.running
            self.running[text] = asyncio.get_running_loop().create_future()
            try:
                return await self.running[text]
            finally:
                del self.running[text]

        return call

    def end(self, text, outcome):
        future = self.running.get(text)
        if future is not None and not future.done():
            future.set_exception(outcome) if isinstance(outcome, Exception) else future.set_result(outcome)

    def obey(self, order, number):
        text = f"{number % 2}"
        if order == "ask":
            self.tasks.append((text, asyncio.create_task(self.flight.do(P, text, self.work(text)))))
        elif order == "cancel":
            for _, task in self.tasks[number : number + 1]:
                task.cancel()
        else:
            self.end(text, f"answer {text}" if order == "end" else ValueError(text))

    def check_outcomes(self):
        for text, task in self.tasks:
            assert task.done()
            if not task.cancelled():
                error = task.exception()
                assert str(error) == text if error else task.result().value in (f"answer {text}", "the end")


orders = st.tuples(st.sampled_from(["ask", "cancel", "end", "fail"]), st.integers(0, 3))


@given(st.lists(orders, min_size=1, max_size=40))
def test_whoever_is_not_cancelled_gets_an_outcome(steps):
    async def main():
        crowd = Crowd()
        for order, number in steps:
            crowd.obey(order, number)
            await asyncio.sleep(0)
            assert len(crowd.flight) <= 2
        for _ in range(4 * len(steps)):
            for text in ("0", "1"):
                crowd.end(text, "the end")
            await asyncio.sleep(0)
        crowd.check_outcomes()
        assert len(crowd.flight) == 0

    run(main)


def test_a_bad_number_is_named():
    with pytest.raises(InvalidParameterError, match=r"neighbours must be at least 1. Got 0"):
        SingleFlight(neighbours=0)

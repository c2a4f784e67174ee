import asyncio
import threading

import numpy as np
import pytest

from halve.errors import AnswerError, EnvironmentFailedError, ModelError
from halve.serving.gateway import Gateway, Limits
from halve.testing.fakes import FakeAnswerer


def tensors(*values):
    return [np.array([value], dtype=np.float32) for value in values]


def run(chain, use, *, limits=None):
    """Start a gateway, use it, close it; return what `use` returned."""

    async def main():
        gateway = Gateway(chain, limits=limits)
        await gateway.start()
        try:
            return await use(gateway)
        finally:
            await gateway.close()

    return asyncio.run(asyncio.wait_for(main(), 20))


def unsure_above(limit):
    return lambda payload: 0.9 if payload[0] < limit else 0.4


def test_the_first_answer_that_stands_wins_and_the_last_model_always_answers(make_chain):
    makers = {
        "small": lambda: FakeAnswerer(name="small", confidence=unsure_above(3)),
        "middle": lambda: FakeAnswerer(name="middle", confidence=unsure_above(6)),
        "large": lambda: FakeAnswerer(name="large", confidence=lambda payload: 0.2),
    }
    chain = make_chain(makers)
    answers = run(chain, lambda gateway: gateway.answer(tensors(*range(9))))
    assert [answer.answer for answer in answers] == list(range(9))
    assert [answer.stage for answer in answers] == ["small"] * 3 + ["middle"] * 3 + ["large"] * 3
    asked = {
        name: [float(p[0]) for batch in fakes[0].batches for p in batch] for name, fakes in chain.load.loaded.items()
    }
    assert asked == {"small": list(range(9)), "middle": list(range(3, 9)), "large": list(range(6, 9))}


def test_many_callers_share_batches_and_each_gets_its_own_answers(make_chain):
    chain = make_chain({"only": lambda: FakeAnswerer(classes=1000, seconds_per_batch=0.002)}, max_batch_size=16)

    async def use(gateway):
        calls = [gateway.answer(tensors(3 * n, 3 * n + 1, 3 * n + 2)) for n in range(60)]
        return await asyncio.gather(*calls)

    results = run(chain, use)
    assert [[answer.answer for answer in result] for result in results] == [
        [3 * n, 3 * n + 1, 3 * n + 2] for n in range(60)
    ]
    sizes = chain.load.loaded["only"][0].batch_sizes
    assert sum(sizes) == 180
    assert max(sizes) == 16


def test_each_replica_loads_its_own_answerer_in_its_own_thread_and_closes_it(make_chain):
    together = threading.Barrier(3)

    class Meets(FakeAnswererProxy):
        def answer(self, payloads):
            together.wait(20)  # passes only if three replicas are answering at the same time
            return super().answer(payloads)

    chain = make_chain({"only": Meets}, replicas=3, max_batch_size=1)
    run(chain, lambda gateway: gateway.answer(tensors(1, 2, 3)))
    fakes = [replica.fake for replica in chain.load.loaded["only"]]
    assert len(fakes) == 3
    assert len({name for fake in fakes for name in fake.threads}) == 3
    assert [fake.is_closed for fake in fakes] == [True] * 3


class FakeAnswererProxy:
    def __init__(self):
        self.fake = FakeAnswerer()

    def answer(self, payloads):
        return self.fake.answer(payloads)

    def close(self):
        self.fake.close()


def test_a_failing_item_fails_its_request_and_nobody_elses(make_chain):
    chain = make_chain(
        {"only": lambda: FakeAnswerer(fails_on=lambda payload: payload[0] == 5)}, max_batch_size=6, max_wait_seconds=5.0
    )

    async def use(gateway):
        return await asyncio.gather(
            gateway.answer(tensors(1, 2)), gateway.answer(tensors(4, 5)), gateway.answer(tensors(3, 6)),
            return_exceptions=True,
        )  # fmt: skip

    before, failed, after = run(chain, use)
    assert [answer.answer for answer in (*before, *after)] == [1, 2, 3, 6]
    assert isinstance(failed, AnswerError)
    assert str(failed) == "model 'only' failed on input 1: it was told to fail"
    assert chain.load.loaded["only"][0].batch_sizes[0] == 6


def test_too_much_at_once_is_refused_and_what_was_taken_is_answered(make_chain):
    gate = threading.Event()

    class Held(FakeAnswererProxy):
        def answer(self, payloads):
            gate.wait(20)
            return super().answer(payloads)

    async def use(gateway):
        taken = asyncio.create_task(gateway.answer(tensors(1, 2, 3)))
        await asyncio.sleep(0)
        with pytest.raises(EnvironmentFailedError, match=r"items in flight must be at most 4. Got 3 and 2 more"):
            await gateway.answer(tensors(4, 5))
        gate.set()
        first = await taken
        return [*first, *await gateway.answer(tensors(4, 5))]

    answers = run(make_chain({"only": Held}), use, limits=Limits(in_flight_items=4))
    assert [answer.answer for answer in answers] == [1, 2, 3, 4, 5]


def test_close_answers_what_was_taken_and_refuses_what_comes_later(make_chain):
    chain = make_chain({"only": lambda: FakeAnswerer(seconds_per_batch=0.02)}, max_batch_size=2)

    async def main():
        gateway = Gateway(chain)
        await gateway.start()
        assert gateway.is_ready
        taken = asyncio.create_task(gateway.answer(tensors(*range(7))))
        await asyncio.sleep(0)
        closing = asyncio.create_task(gateway.close())
        await asyncio.sleep(0)
        assert not gateway.is_ready
        with pytest.raises(EnvironmentFailedError, match="the gateway is stopping and answers nothing"):
            await gateway.answer(tensors(1))
        await closing
        return await taken

    assert [answer.answer for answer in asyncio.run(main())] == list(range(7))
    assert chain.load.loaded["only"][0].is_closed


def test_close_gives_up_on_what_takes_too_long_and_says_so(make_chain):
    chain = make_chain({"only": lambda: FakeAnswerer(seconds_per_batch=1.5)}, max_batch_size=1)

    async def main():
        gateway = Gateway(chain, limits=Limits(drain_seconds=1))
        await gateway.start()
        taken = [asyncio.create_task(gateway.answer(tensors(n))) for n in range(4)]
        await asyncio.sleep(0)
        await gateway.close()
        return await asyncio.gather(*taken, return_exceptions=True)

    results = asyncio.run(main())
    assert results[0][0].answer == 0
    assert "the gateway is stopping" in str(results[3])


def test_a_model_that_cannot_be_loaded_stops_the_start_and_closes_the_others(make_chain):
    def broken():
        raise ModelError("the file of model 'large' is missing.")

    chain = make_chain({"small": FakeAnswerer, "large": broken})
    with pytest.raises(ModelError, match="the file of model 'large' is missing"):
        run(chain, lambda gateway: gateway.answer(tensors(1)))
    assert chain.load.loaded["small"][0].is_closed


def test_a_loader_that_breaks_is_named(make_chain):
    def broken():
        raise KeyError("weights")

    with pytest.raises(ModelError, match=r"model 'only' cannot be loaded: KeyError\('weights'\)"):
        run(make_chain({"only": broken}), lambda gateway: gateway.answer(tensors(1)))


def test_before_the_models_are_loaded_nothing_is_answered(make_chain):
    async def main():
        with pytest.raises(EnvironmentFailedError, match="the gateway is loading and answers nothing"):
            await Gateway(make_chain()).answer(tensors(1))

    asyncio.run(main())


def test_an_identical_request_is_answered_from_the_cache_with_the_same_answer(make_chain, dict_cache):
    makers = {"small": lambda: FakeAnswerer(confidence=unsure_above(5)), "large": FakeAnswerer}
    chain = make_chain(makers, cache=dict_cache)

    async def use(gateway):
        return [(await gateway.answer(tensors(value)))[0] for value in (7, 2, 7, 2, 8)]

    answers = run(chain, use)
    assert [answer.answer for answer in answers] == [7, 2, 7, 2, 8]
    assert [answer.stage for answer in answers] == ["large", "small", "exact_cache", "exact_cache", "large"]
    assert np.array_equal(answers[0].probabilities, answers[2].probabilities)
    assert sum(chain.load.loaded["small"][0].batch_sizes) == 3
    assert {stored.stage for stored in dict_cache.stored.values()} == {"small", "large"}
    assert dict_cache.clock == sorted(dict_cache.clock)


def test_a_request_may_be_half_cached(make_chain, dict_cache):
    chain = make_chain(cache=dict_cache)

    async def use(gateway):
        await gateway.answer(tensors(1, 3))
        return await gateway.answer(tensors(0, 1, 2, 3))

    answers = run(chain, use)
    assert [answer.answer for answer in answers] == [0, 1, 2, 3]
    assert [answer.stage for answer in answers] == ["only", "exact_cache", "only", "exact_cache"]


def test_identical_requests_in_flight_are_answered_once(make_chain, dict_cache):
    chain = make_chain(cache=dict_cache)

    async def use(gateway):
        return await asyncio.gather(*(gateway.answer(tensors(7)) for _ in range(50)), gateway.answer(tensors(8, 7, 8)))

    *single, mixed = run(chain, use)
    assert [answers[0].answer for answers in single] == [7] * 50
    assert [answer.answer for answer in mixed] == [8, 7, 8]
    assert sum(chain.load.loaded["only"][0].batch_sizes) == 2
    assert [answers[0].stage for answers in single].count("exact_cache") == 49


def test_a_failure_reaches_all_who_waited_for_it_and_is_asked_again_later(make_chain, dict_cache):
    chain = make_chain({"only": lambda: FakeAnswerer(fails_on=lambda payload: True)}, cache=dict_cache)

    async def use(gateway):
        first = await asyncio.gather(*(gateway.answer(tensors(1)) for _ in range(5)), return_exceptions=True)
        with pytest.raises(AnswerError):
            await gateway.answer(tensors(1))
        return first

    assert [type(error) for error in run(chain, use)] == [AnswerError] * 5
    assert dict_cache.stored == {}
    assert sum(chain.load.loaded["only"][0].batch_sizes) == 2


def test_who_gives_up_waiting_takes_nobody_along(make_chain, dict_cache):
    chain = make_chain(cache=dict_cache)

    async def use(gateway):
        leader = asyncio.ensure_future(gateway.answer(tensors(3)))
        follower = asyncio.ensure_future(gateway.answer(tensors(3)))
        await asyncio.sleep(0)
        leader.cancel()
        return await follower

    assert [answer.answer for answer in run(chain, use)] == [3]


def test_a_failure_is_not_cached(make_chain, dict_cache):
    chain = make_chain({"only": lambda: FakeAnswerer(fails_on=lambda payload: True)}, cache=dict_cache)

    async def use(gateway):
        for _ in range(2):
            with pytest.raises(AnswerError):
                await gateway.answer(tensors(1))

    run(chain, use)
    assert dict_cache.stored == {}
    assert sum(chain.load.loaded["only"][0].batch_sizes) == 2

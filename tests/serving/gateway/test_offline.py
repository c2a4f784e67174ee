import asyncio

import numpy as np
import pytest

from halve.errors import AnswerError, InvalidParameterError
from halve.measure.replay import encode_bodies, replay
from halve.serving.gateway import Gateway, answer_offline
from halve.testing.fakes import FakeAnswerer


@pytest.fixture
def payloads():
    rng = np.random.default_rng(5)
    return list(rng.uniform(0, 40, size=(100, 3)).astype(np.float32))


def cascade(make_chain, **options):
    makers = {
        "small": lambda: FakeAnswerer(classes=40, confidence=lambda payload: 0.05 + 0.9 * (payload[1] / 40)),
        "large": lambda: FakeAnswerer(classes=40, confidence=lambda payload: 0.9),
    }
    return make_chain(makers, max_batch_size=7, threshold=0.4, **options)


def test_the_server_answers_exactly_as_the_offline_chain_does(make_chain, serving, payloads):
    offline = answer_offline(cascade(make_chain), payloads)
    client = serving(cascade(make_chain, replicas=2))
    bodies = encode_bodies(payloads)
    record = replay(client.url, model_name="demo", arrival_seconds=np.arange(100) / 1000, bodies=bodies)
    assert record.labels.tolist() == [answer.answer for answer in offline]
    assert list(record.stages) == [answer.stage for answer in offline]
    assert set(record.stages) == {"small", "large"}


def test_a_cached_server_still_answers_as_the_offline_chain(make_chain, dict_cache, payloads):
    chain = cascade(make_chain, cache=dict_cache)

    async def served():
        gateway = Gateway(chain)
        await gateway.start()
        answers = [*await gateway.answer(payloads), *await gateway.answer(payloads)]
        await gateway.close()
        return answers

    offline = answer_offline(chain, payloads)
    answers = asyncio.run(served())
    assert [answer.answer for answer in answers] == [answer.answer for answer in offline] * 2
    assert {answer.stage for answer in answers[100:]} == {"exact_cache"}


def test_batches_are_as_large_as_asked_and_models_are_closed(make_chain, payloads):
    chain = cascade(make_chain)
    answer_offline(chain, payloads[:10], batch_size=4)
    (small,) = chain.load.loaded["small"]
    assert small.batch_sizes == [4, 4, 2]
    assert small.is_closed


def test_nothing_asked_nothing_answered(make_chain):
    assert answer_offline(cascade(make_chain), []) == []


def test_the_payload_that_fails_is_named(make_chain, payloads):
    worst = payloads[70]
    chain = make_chain({"only": lambda: FakeAnswerer(fails_on=lambda payload: np.array_equal(payload, worst))})
    with pytest.raises(AnswerError, match="model 'only' failed on input 70: it was told to fail"):
        answer_offline(chain, payloads)
    assert chain.load.loaded["only"][0].is_closed


def test_the_batch_size_is_at_least_one(make_chain, payloads):
    with pytest.raises(InvalidParameterError, match=r"batch_size must be at least 1. Got 0"):
        answer_offline(cascade(make_chain), payloads, batch_size=0)

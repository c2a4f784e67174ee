import asyncio
from dataclasses import dataclass, field, replace

import numpy as np

from halve.serving.gateway import Gateway
from halve.testing.fakes import FakeAnswerer


@dataclass
class Watch:
    """Notes what it is told."""

    share: float = 1.0
    place: int = 0
    upper_bound: float = 0.5
    told: list = field(default_factory=list)

    def shadow(self, *, same, skipped):
        self.told.append((same, skipped))
        return "watch: it is tightened" if not same else None


def tensors(*values):
    return [np.full(3, value, np.float32) for value in values]


def sure_below(limit):
    return lambda payload: 0.9 if payload[0] < limit else 0.4


def lying(payload):
    return int(payload[0]) + 1


def answers_of(chain, *values):
    async def main():
        gateway = Gateway(chain)
        await gateway.start()
        answers = [(await gateway.answer(tensors(value)))[0] for value in values]
        while gateway._in_flight:  # second opinions come after the answers
            await asyncio.sleep(0.01)
        text = gateway.metrics.render().decode()
        await gateway.close()
        return answers, text

    return asyncio.run(main())


def test_every_early_answer_is_asked_twice_at_a_share_of_one(make_chain):
    watch = Watch()
    makers = {"small": lambda: FakeAnswerer(confidence=sure_below(5)), "large": FakeAnswerer}
    answers, text = answers_of(replace(make_chain(makers), watch=watch), 1, 7, 2, 8, 3)
    assert [answer.stage for answer in answers] == ["small", "large", "small", "large", "small"]
    assert [same for same, _ in watch.told] == [True] * 3
    assert sum(skipped for _, skipped in watch.told) <= 2
    assert 'halve_shadow_calls_total{same="yes"} 3.0' in text
    assert "halve_watch_tightened 0.0" in text
    assert "halve_watch_disagreement_upper_bound 0.5" in text


def test_second_opinions_are_no_answers(make_chain):
    makers = {"small": FakeAnswerer, "large": FakeAnswerer}
    _, text = answers_of(replace(make_chain(makers, threshold=0.0), watch=Watch()), 1, 2)
    assert 'halve_answers_total{stage="small"} 2.0' in text
    assert 'halve_answers_total{stage="large"} 0.0' in text


def test_nothing_is_asked_twice_without_a_watch_or_by_a_chain_of_one(make_chain):
    makers = {"small": FakeAnswerer, "large": FakeAnswerer}
    chain = make_chain(makers, threshold=0.0)
    answers_of(chain, 1, 2)
    assert sum(chain.load.loaded["large"][0].batch_sizes) == 0
    watch = Watch()
    answers_of(replace(make_chain(), watch=watch), 1, 2)
    assert watch.told == []


def test_a_share_is_drawn_and_the_rest_is_counted_as_skipped(make_chain):
    watch = Watch(share=0.25)
    makers = {"small": FakeAnswerer, "large": FakeAnswerer}
    answers_of(replace(make_chain(makers, threshold=0.0), watch=watch), *([1] * 200))
    assert 20 <= len(watch.told) <= 90
    assert sum(skipped for _, skipped in watch.told) + len(watch.told) <= 200


def test_a_model_that_fails_on_the_second_question_says_nothing(make_chain):
    watch = Watch()
    makers = {"small": FakeAnswerer, "large": lambda: FakeAnswerer(fails_on=lambda payload: True)}
    answers, _ = answers_of(replace(make_chain(makers, threshold=0.0), watch=watch), 1, 2)
    assert [answer.stage for answer in answers] == ["small", "small"]
    assert watch.told == []

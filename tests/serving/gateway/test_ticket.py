import asyncio

import pytest

from halve.errors import AnswerError, EnvironmentFailedError
from halve.serving.gateway import Answered
from halve.serving.gateway.ticket import Asked


def settled(*results):
    """Settle items 0, 1, ... last first, and return what the request's future gives."""

    async def main():
        asked = Asked(len(results), asyncio.get_running_loop().create_future())
        for index in reversed(range(len(results))):
            assert not asked.future.done()
            asked.settle(index, results[index])
        return await asked.future

    return asyncio.run(main())


def test_answers_come_in_the_order_of_the_items_however_they_arrived():
    answers = [Answered(number, None, "m") for number in range(4)]
    assert settled(*answers) == answers


def test_one_failure_fails_the_request_and_names_the_item_in_it():
    with pytest.raises(AnswerError, match="model 'm' failed on input 1: no"):
        settled(Answered(0, None, "m"), AnswerError("m", index=7, cause="no"), Answered(2, None, "m"))


def test_other_failures_pass_unchanged():
    with pytest.raises(EnvironmentFailedError, match="the gateway is stopping"):
        settled(Answered(0, None, "m"), EnvironmentFailedError("the gateway is stopping"))


def test_a_caller_who_left_is_not_told():
    async def main():
        asked = Asked(1, asyncio.get_running_loop().create_future())
        asked.future.cancel()
        asked.settle(0, Answered(0, None, "m"))
        return asked.future.cancelled()

    assert asyncio.run(main())

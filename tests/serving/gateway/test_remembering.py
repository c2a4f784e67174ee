import threading

import pytest

from halve.core import CachedAnswer
from halve.errors import StorageError
from halve.serving.gateway.remembering import MOST_WAITING, Remembering


class Memory:
    def __init__(self, *, error=None):
        self.held, self.closed, self.error = [], 0, error
        self.go = threading.Event()
        self.go.set()

    def remember(self, payload, answer):
        self.go.wait()
        if self.error:
            raise self.error
        self.held.append((payload, answer.answer))

    def close(self):
        self.closed += 1


def test_everything_that_was_put_is_written_before_the_memory_closes():
    memory = Memory()
    one = Remembering(memory)
    assert all(one.put(f"text {number}", CachedAnswer(answer=number)) for number in range(100))
    one.close()
    assert memory.held == [(f"text {number}", number) for number in range(100)]
    one.close()
    assert memory.closed == 2


def test_a_slow_disk_holds_up_nobody():
    memory = Memory()
    memory.go.clear()
    one = Remembering(memory)
    taken = [one.put("text", CachedAnswer(answer=0)) for _ in range(MOST_WAITING + 2)]
    assert taken[0]
    assert not taken[-1]
    memory.go.set()
    one.close()


def test_an_answer_that_cannot_be_stored_is_said_once(caplog):
    memory = Memory(error=StorageError("the disk is full."))
    one = Remembering(memory)
    for _ in range(3):
        one.put("text", CachedAnswer(answer=0))
    one.close()
    assert [record.message for record in caplog.records].count(
        "an answer could not be remembered: the disk is full."
    ) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_it_closes_whatever_was_put(count):
    memory = Memory()
    one = Remembering(memory)
    for _ in range(count):
        one.put("text", CachedAnswer(answer=0))
    one.close()
    assert memory.closed == 1

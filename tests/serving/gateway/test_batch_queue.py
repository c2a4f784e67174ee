import threading
import time
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from halve.core import BatchPolicy
from halve.serving.gateway.batch_queue import BatchQueue

FOREVER_SECONDS = 3600.0


def queue(max_batch_size=4, max_wait_seconds=0.0):
    return BatchQueue(BatchPolicy(max_batch_size=max_batch_size, max_wait_seconds=max_wait_seconds))


def test_a_full_batch_leaves_however_long_the_policy_would_wait():
    waiting = queue(4, FOREVER_SECONDS)
    waiting.put(range(6))
    assert waiting.take().items == [0, 1, 2, 3]


def test_zero_wait_takes_what_is_there():
    waiting = queue(4, 0.0)
    waiting.put([1, 2])
    assert waiting.take().items == [1, 2]


def test_the_window_opens_with_the_oldest_request_and_not_with_the_free_replica():
    waiting = queue(4, 0.2)
    waiting.put([1])
    time.sleep(0.25)  # the oldest has waited long enough before anybody looks
    before = time.monotonic()
    batch = waiting.take()
    assert batch.items == [1]
    assert batch.waited_seconds[0] >= 0.2
    assert batch.waited_seconds[0] - (time.monotonic() - before) >= 0.2


def test_a_lone_request_waits_its_window_out():
    waiting = queue(4, 0.05)
    waiting.put([1])
    assert waiting.take().waited_seconds[0] >= 0.05


def test_company_that_fills_the_batch_ends_the_wait():
    waiting = queue(3, FOREVER_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(waiting.take)
        for item in "abc":
            waiting.put([item])
        assert taken.result(20).items == ["a", "b", "c"]


def test_what_one_replica_leaves_wakes_another():
    waiting = queue(1, 0.0)
    with ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(waiting.take) for _ in range(3)]
        waiting.put([1, 2, 3])
        assert sorted(future.result(20).items[0] for future in taken) == [1, 2, 3]


def test_close_wakes_every_replica_and_returns_the_rest():
    waiting = queue(4, FOREVER_SECONDS)
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(waiting.take) for _ in range(2)]
        waiting.put([1, 2])
        assert waiting.close() == [1, 2]
        assert [future.result(20) for future in taken] == [None, None]
    assert waiting.put([3]) is False
    assert waiting.take() is None


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.integers(1, 7), min_size=1, max_size=30),
    max_batch_size=st.integers(1, 9),
    replicas=st.integers(1, 4),
    max_wait_seconds=st.sampled_from([0.0, 0.001]),
)
def test_every_request_is_taken_once_in_order_and_never_in_too_large_a_batch(
    groups, max_batch_size, replicas, max_wait_seconds
):
    waiting, batches, lock = queue(max_batch_size, max_wait_seconds), [], threading.Lock()
    total = sum(groups)
    everything = threading.Event()

    def replica():
        while (batch := waiting.take()) is not None:
            with lock:
                batches.append(batch)
                if sum(len(taken.items) for taken in batches) == total:
                    everything.set()

    with ThreadPoolExecutor(replicas) as pool:
        for _ in range(replicas):
            pool.submit(replica)
        first = 0
        for size in groups:
            waiting.put(range(first, first + size))
            first += size
        assert everything.wait(20)
        waiting.close()
    assert sorted(item for batch in batches for item in batch.items) == list(range(total))
    for batch in batches:
        assert len(batch.items) <= max_batch_size
        assert batch.items == list(range(batch.items[0], batch.items[0] + len(batch.items)))
        assert len(batch.waited_seconds) == len(batch.items)
        assert min(batch.waited_seconds) >= 0
        if len(batch.items) < max_batch_size:
            assert batch.waited_seconds[0] >= max_wait_seconds

from dataclasses import replace

import numpy as np
import pytest

from halve.core import CachedAnswer, Stage
from halve.levers.exact_cache import ExactCaching, cache_hits, cache_key, serve_cache


def test_without_repeats_no_cache_is_proposed(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench)
    assert list(ExactCaching().propose(stack, bench)) == []
    assert ExactCaching().nothing(stack, bench) == (
        "not enabled: no repeats were observed or declared, so it would hit 0.0 % of requests"
    )


def test_repeats_that_were_looked_for_and_not_found_say_so(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, repeats="observed")
    assert list(ExactCaching().propose(baseline_of(bench), bench)) == []
    reason = ExactCaching().nothing(baseline_of(bench), bench)
    assert reason == "not enabled: it would hit 0.0% of requests (repeats observed)"


@pytest.mark.parametrize("repeats", ["observed", "declared"])
def test_repeats_earn_a_cache_in_front_of_the_chain(table_bench, baseline_of, tmp_path, repeats):
    bench = table_bench(tmp_path, content=range(50), repeats=repeats, requests_per_second=800.0)
    stack = baseline_of(bench)
    (change,) = ExactCaching().propose(stack, bench)
    assert [stage.kind for stage in change.after.stages] == ["exact_cache", "model"]
    n = bench.workload.traffic.n_requests
    assert f"{(n - 50) / n:.1%} of requests repeat an earlier one ({repeats})" in change.reason
    with_cache, without = bench.measure(change.after), bench.measure(stack)
    assert with_cache.stage_share["exact_cache"] == pytest.approx((n - 50) / n)
    assert with_cache.scores == without.scores, "a hit returns what the chain answered before"
    fitted = bench.fit(change.after)
    assert bench.usd_per_hour(fitted) < bench.usd_per_hour(bench.fit(stack))


def test_one_cache_is_enough(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path, content=range(50), repeats="observed")
    (change,) = ExactCaching().propose(baseline_of(bench), bench)
    assert list(ExactCaching().propose(change.after, bench)) == []


def test_the_served_cache_hits_when_the_simulated_one_does():
    rng = np.random.default_rng(0)
    content, arrivals = rng.integers(0, 20, 300), np.sort(rng.uniform(0, 100, 300))
    stage = Stage(kind="exact_cache", capacity_entries=8, ttl_seconds=30.0)
    cache, hits = serve_cache(stage), []
    for number, now in zip(content, arrivals, strict=True):
        key = cache_key(np.array([number], np.float32))
        found = cache.get(key, now_seconds=float(now))
        hits.append(found is not None)
        if found is None:
            cache.put(key, CachedAnswer(answer=int(number)), now_seconds=float(now))
        else:
            assert found.answer == number
    np.testing.assert_array_equal(hits, cache_hits(content, arrivals, stage))
    assert any(hits)
    assert not all(hits[20:])
    everything = replace(stage, capacity_entries=100, ttl_seconds=None)
    assert cache_hits(content, arrivals, everything).sum() == 300 - len(np.unique(content))


def test_keys_tell_payloads_apart():
    same = [np.array([1, 2], np.float32), np.array([1, 2], np.float32)]
    assert cache_key(same[0]) == cache_key(same[1])
    others = [np.array([1, 3], np.float32), np.array([[1, 2]], np.float32), "12", "1 2"]
    assert len({cache_key(payload) for payload in (*same, *others)}) == 5

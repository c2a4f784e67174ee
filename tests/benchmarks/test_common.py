"""The interval that every benchmark prints holds the true median as often as it says."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "_common.py"


@pytest.fixture(scope="module")
def common():
    spec = importlib.util.spec_from_file_location("benchmarks_common", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("n", [6, 9, 15, 40])
def test_the_interval_covers_and_the_next_narrower_would_not(common, n):
    draws = np.random.default_rng(n).exponential(size=(4_000, n))
    found = [common.median_interval(row) for row in draws]
    covered = np.mean([estimate.low <= np.log(2) <= estimate.high for estimate in found])
    assert covered > 0.95 - 3 * np.sqrt(0.05 * 0.95 / len(draws))
    k = int(np.searchsorted(np.sort(draws[0]), found[0].low))
    assert 2 * binom.cdf(k, n, 0.5) <= 0.05 < 2 * binom.cdf(k + 1, n, 0.5)


def test_a_few_samples_give_their_range(common):
    estimate = common.median_interval([3.0, 1.0, 2.0])
    assert (estimate.median, estimate.low, estimate.high) == (2.0, 1.0, 3.0)


def test_every_round_runs_everything_and_starts_with_another(common):
    order, ticks = [], iter(range(1000))
    actions = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = common.interleaved(actions, rounds=3, clock=lambda: float(next(ticks)))
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: values.tolist() for name, values in seconds.items()} == {key: [1.0, 1.0, 1.0] for key in "abc"}


def test_a_table_is_aligned(common):
    assert common.table(["name", "n"], [["a", 10], ["long", 5]]) == "name   n\na     10\nlong   5"

"""A station refuses what no queue could run."""

import math

import numpy as np
import pytest

from halve.core import BatchPolicy
from halve.errors import InvalidParameterError
from halve.measure.simulate import Station

GOOD = {"name": "m", "seconds_by_batch": np.array([0.1, 0.2]), "replicas": 1, "batch": BatchPolicy(max_batch_size=2)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"replicas": 0}, "replicas of m must be at least 1. Got 0"),
        ({"seconds_by_batch": np.array([0.1])}, r"seconds_by_batch of m must be one number .* 2. Got \(1,\)"),
        ({"seconds_by_batch": np.ones((2, 2))}, r"seconds_by_batch of m must be one number .* Got \(2, 2\)"),
        ({"seconds_by_batch": np.array([0.1, math.nan])}, "seconds_by_batch of m must be finite .* Got nan"),
        ({"seconds_by_batch": np.array([0.1, math.inf])}, "seconds_by_batch of m must be finite .* Got inf"),
        ({"seconds_by_batch": np.array([-0.1, 0.2])}, "seconds_by_batch of m must be finite .* Got -0.1"),
        ({"noise_ratios": np.array([])}, r"noise_ratios of m must be None or .* Got \(0,\)"),
        ({"noise_ratios": np.ones((1, 1))}, r"noise_ratios of m must be None or .* Got \(1, 1\)"),
        ({"noise_ratios": np.array([1.0, 0.0])}, "noise_ratios of m must be finite and positive. Got 0.0"),
        ({"noise_ratios": np.array([math.nan])}, "noise_ratios of m must be finite and positive. Got nan"),
    ],
)
def test_bad_values_are_named(changed, message):
    with pytest.raises(InvalidParameterError, match=message):
        Station(**(GOOD | changed))


def test_more_sizes_than_the_policy_needs_are_fine():
    assert len(Station(**(GOOD | {"seconds_by_batch": np.arange(1.0, 9.0)})).seconds_by_batch) == 8

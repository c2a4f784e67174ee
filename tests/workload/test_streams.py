import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.workload.streams import random_stream


def test_same_seed_and_purpose_give_the_same_numbers() -> None:
    assert np.array_equal(random_stream(3, purpose="thin").random(5), random_stream(3, purpose="thin").random(5))


def test_another_seed_or_purpose_gives_other_numbers() -> None:
    drawn = [
        random_stream(seed, purpose=purpose).random() for seed in range(5) for purpose in ("thin", "multiply", "t")
    ]
    assert len(set(drawn)) == 15


def test_negative_seed_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"seed must be at least 0\. Got -1"):
        random_stream(-1, purpose="thin")

"""Random numbers by seed and purpose."""

import numpy as np

from halve.errors import InvalidParameterError


def random_stream(seed: int, *, purpose: str) -> np.random.Generator:
    """Return a generator that is independent of the same seed's generator for any other purpose.

    Raises:
        InvalidParameterError: If the seed is negative.
    """
    if seed < 0:
        raise InvalidParameterError("seed", rule="at least 0", value=seed)
    return np.random.default_rng([seed, *purpose.encode()])

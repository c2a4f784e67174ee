"""In work."""

from typing import Any


def correct_biases(*args: Any, **kwargs: Any) -> Any:
    """Not here yet."""
    raise NotImplementedError

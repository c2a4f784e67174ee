"""In work."""

from typing import Any


def equalize(*args: Any, **kwargs: Any) -> Any:
    """Not here yet."""
    raise NotImplementedError

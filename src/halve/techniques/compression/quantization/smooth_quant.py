"""In work."""

from typing import Any


def smooth(*args: Any, **kwargs: Any) -> Any:
    """Not here yet."""
    raise NotImplementedError

"""In work."""

from typing import Any


def quantize_weight_only(*args: Any, **kwargs: Any) -> Any:
    """Not here yet."""
    raise NotImplementedError

"""The name under which an identical request is found again."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError


def exact_key(payload: NDArray[Any] | str) -> bytes:
    """Return the SHA-256 of a payload: 32 bytes, equal if and only if the payload is, byte for byte.

    A text is hashed as "text:" and its UTF-8 form; a tensor as "tensor:", dtype, shape and its elements in C order.
    The prefix keeps a text from ever equalling a tensor; dtype and shape keep reshaped or recast data apart. Nothing
    is normalized: a space more, or -0.0 for 0.0, is another request.

    Args:
        payload: A text (lone surrogates allowed) or an array of numbers or booleans.

    Raises:
        InvalidParameterError: If it is neither, or an array of Python objects, whose bytes are addresses.
    """
    if isinstance(payload, str):
        return hashlib.sha256(b"text:" + payload.encode("utf-8", "surrogatepass")).digest()
    if not isinstance(payload, np.ndarray) or payload.dtype.hasobject:
        kind = f"{type(payload).__name__} of {payload.dtype}" if isinstance(payload, np.ndarray) else type(payload)
        raise InvalidParameterError("payload", rule="a text or a numeric array", value=kind)
    head = f"tensor:{payload.dtype.str}:{payload.shape}:".encode()
    return hashlib.sha256(head + payload.tobytes()).digest()

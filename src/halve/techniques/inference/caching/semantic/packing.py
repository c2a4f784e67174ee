"""Arrays as JSON and back, bit for bit: base64 of little-endian bytes with type and shape. Never pickle."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

_TYPES = ("<f4", "<f8", "<i4", "<i8")
_MOST_BYTES = 256 * 2**20


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as a JSON object.

    Args:
        array: float32, float64, int32 or int64, of any shape.

    Raises:
        InvalidParameterError: If it has another type.
    """
    kind = array.dtype.newbyteorder("<").str
    if kind not in _TYPES:
        raise InvalidParameterError("array", rule=f"of a type in {', '.join(_TYPES)}", value=kind)
    data = np.ascontiguousarray(array, dtype=kind).tobytes()
    return {"type": kind, "shape": list(array.shape), "base64": base64.b64encode(data).decode()}


def unpacked(document: Mapping[str, Any]) -> NDArray[Any]:
    """Return the array that `packed` described.

    Raises:
        InvalidParameterError: If the object is not of that form, or its bytes do not fill its shape.
    """
    try:
        kind, shape = str(document["type"]), tuple(int(size) for size in document["shape"])
        data = base64.b64decode(document["base64"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidParameterError("array", rule="an object with type, shape and base64", value=repr(error)) from None
    if kind not in _TYPES or min(shape, default=1) < 0 or len(data) > _MOST_BYTES:
        raise InvalidParameterError("array", rule=f"of a type in {', '.join(_TYPES)}, at most 256 MiB", value=kind)
    dtype = np.dtype(kind)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data):
        raise InvalidParameterError("array", rule=f"{shape} numbers of {dtype.itemsize} bytes", value=len(data))
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))


def packed_all(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return named arrays as one JSON object."""
    return {name: packed(array) for name, array in arrays.items()}


def unpacked_all(document: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays that `packed_all` described.

    Raises:
        InvalidParameterError: As in `unpacked`, or if the document is no object.
    """
    if not isinstance(document, Mapping):
        raise InvalidParameterError("arrays", rule="an object", value=type(document).__name__)
    return {name: unpacked(array) for name, array in document.items()}

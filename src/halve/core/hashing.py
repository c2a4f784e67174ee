"""Hashes of payloads: equal content, equal hash, in every room and on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

from halve.core.workload import Payload


def payload_digest(payload: Payload, *, salt: str = "") -> bytes:
    """Return SHA-256 over the content of a payload: 32 bytes, equal for equal payloads.

    Tensors: float32 little-endian bytes with their shape, -0 as 0. Texts: UTF-8.
    """
    digest = hashlib.sha256(f"{len(salt)}:{salt}:".encode())
    if isinstance(payload, str):
        digest.update(b"text:" + payload.encode("utf-8", "surrogatepass"))
    else:
        tensor = np.asarray(payload, dtype="<f4") + np.float32(0)
        digest.update(f"float32{tensor.shape}:".encode() + tensor.tobytes())
    return digest.digest()


def payload_hash(payloads: Sequence[Payload]) -> str:
    """Return a SHA-256 over payloads in their order, in hexadecimal."""
    digest = hashlib.sha256()
    for payload in payloads:
        digest.update(payload_digest(payload))
    return digest.hexdigest()

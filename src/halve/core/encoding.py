"""Texts as vectors: what makes two encoders the same, and the port that every encoder fills."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

Pooling = Literal["mean", "cls", "none"]
"""How token states become one vector: their mean over the text, the first one, or the model does it itself."""


@dataclass(frozen=True, kw_only=True)
class EncoderFingerprint:
    """What vectors depend on. An index keeps it, and refuses vectors of another.

    Args:
        model_sha256: Of the model's bytes and its tokenizer's; of address and name for an endpoint.
        dimension: Numbers per vector, >= 1.
        pooling: See `Pooling`; `none` where the model or server pools.
        is_normalized: Whether vectors have unit length.
        max_tokens: Longer texts are cut; 0 where the server cuts.
    """

    model_sha256: str
    dimension: int
    pooling: Pooling
    is_normalized: bool
    max_tokens: int

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise InvalidParameterError("dimension", rule="at least 1", value=self.dimension)

    @property
    def digest(self) -> str:
        """SHA-256 of all fields, in hexadecimal: equal digests, comparable vectors."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Encoder(Protocol):
    """Turns texts into vectors. Not thread-safe: one thread at a time."""

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """What its vectors depend on."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 (n, dimension), unit length; a text's vector does not depend on what shares its batch.

        Raises:
            AnswerError: If a text cannot be encoded; it names the text's position.
        """
        ...

    def close(self) -> None:
        """Give back memory, threads and connections. May be called twice."""
        ...

"""What is asked of a quantization, and the data it gets."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.calibration import Batches

Method = Literal["auto", "static", "dynamic", "weight-only"]
METHODS: tuple[Method, ...] = ("auto", "static", "dynamic", "weight-only")
Step = Callable[[str], AbstractContextManager[object]]
"""Opens one step of the work, described for people."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for.

    Args:
        method: `auto`: the static recipes that fit; weight-only for 4 bits and fewer without convolutions.
        weight_bits, activation_bits: 2 to 8.
        qat_epochs: Epochs of training with quantization in the loop; 0 is none.
        learning_rate: Of that training, > 0.
        error_budget: Largest relative RMSE of the logits; None is none.
        accept_slower: Keep an artifact that is no faster than fp32 here.
        seed: Of everything that draws.
    """

    method: Method = "auto"
    weight_bits: int = 8
    activation_bits: int = 8
    qat_epochs: int = 0
    learning_rate: float = 0.01
    error_budget: float | None = None
    accept_slower: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidParameterError("method", rule=f"one of {', '.join(METHODS)}", value=self.method)
        for name in ("weight_bits", "activation_bits"):
            if getattr(self, name) not in range(2, 9):
                raise InvalidParameterError(name, rule="2 to 8", value=getattr(self, name))
        if self.qat_epochs < 0:
            raise InvalidParameterError("qat_epochs", rule="at least 0", value=self.qat_epochs)
        if self.qat_epochs and self.method != "auto":
            raise InvalidParameterError("method", rule="auto where there is training", value=self.method)
        if self.error_budget is not None and not self.error_budget > 0:
            raise InvalidParameterError("error_budget", rule="positive", value=self.error_budget)
        if self.method == "weight-only" and self.weight_bits not in (4, 8):
            raise InvalidParameterError("weight_bits", rule="4 or 8 for weight-only", value=self.weight_bits)
        if self.method == "dynamic" and self.weight_bits != 8:
            raise InvalidParameterError("weight_bits", rule="8 for dynamic", value=self.weight_bits)


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Inputs like the requests to come.

    Args:
        batches: Of named tensors.
        labels: Class indices, int64 (rows of all batches); None where there are none.
        answers: The model's own log-probabilities, float32 (rows of all batches, classes), for training; None where
            it is to be asked while training.
    """

    batches: Batches
    labels: NDArray[np.int64] | None = None
    answers: NDArray[np.float32] | None = None

    @property
    def sha256(self) -> str:
        """Of every tensor, with its name, type and shape, and of the labels."""
        digest = hashlib.sha256()
        for batch in self.batches:
            for name, array in batch.items():
                digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
        if self.labels is not None:
            digest.update(b"labels\n" + np.ascontiguousarray(self.labels, np.int64).tobytes())
        return digest.hexdigest()

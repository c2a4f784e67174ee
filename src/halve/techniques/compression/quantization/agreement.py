"""How far a quantized model's answers are from those of its fp32 parent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a quantized model's answers are from those of its fp32 parent, on n inputs.

    Args:
        argmax_disagreement_share: Share of inputs whose answer differs, in [0, 1].
        relative_rmse: sqrt(mean (q - f)^2) / std(f) over all logits, q quantized and f fp32.
        n: Inputs compared.
    """

    argmax_disagreement_share: float
    relative_rmse: float
    n: int


def agreement(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Agreement:
    """Compare logits, float32 (n, classes), of the fp32 and of the quantized model.

    Raises:
        ModelError: If they differ in shape.
    """
    if expected.shape != actual.shape:
        raise ModelError(f"logits of both models must have one shape. Got {expected.shape} and {actual.shape}.")
    return Agreement(
        argmax_disagreement_share=float(np.mean(expected.argmax(axis=-1) != actual.argmax(axis=-1))),
        relative_rmse=relative_rmse(expected, actual),
        n=len(expected),
    )


def relative_rmse(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Return sqrt(mean (actual - expected)^2) / std(expected); a constant counts as spread by the least float."""
    spread = max(float(np.std(expected, dtype=np.float64)), float(np.finfo(np.float32).tiny))
    return float(np.sqrt(np.mean(np.square(actual - expected, dtype=np.float64)))) / spread

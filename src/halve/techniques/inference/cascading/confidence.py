"""How sure a classifier is of one answer, from its probabilities."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError

ConfidenceRule = Literal["maximum_probability", "margin", "entropy"]
RULES: tuple[ConfidenceRule, ...] = get_args(ConfidenceRule)

_SUM_TOLERANCE = 1e-2


def confidence(probabilities: NDArray[np.floating], rule: ConfidenceRule) -> NDArray[np.float64]:
    """Return how sure each answer is, in [0, 1]: 1 for a certain one, lower for a doubtful one.

    maximum_probability: p(1); margin: p(1) - p(2); entropy: 1 - H(p) / log k, with p(1) >= p(2) >= ... the sorted
    probabilities of k classes and H(p) = -sum p log p. With two classes all three order answers alike. A model
    with one class has no doubt: 1 by every rule.

    Source: Chow 1970, IEEE Trans. Inf. Theory 16(1), for the first; Scheffer, Decomain & Wrobel 2001 for the margin.

    Args:
        probabilities: (n, k), k >= 1, rows sum to 1; float16 to float64.
        rule: One of the three.

    Returns:
        float64 (n,). An empty batch gives an empty array.

    Raises:
        InvalidParameterError: If the rule is unknown, or a row is not a distribution (logits, NaN).
    """
    if rule not in RULES:
        raise InvalidParameterError("rule", rule=f"one of {', '.join(RULES)}", value=rule)
    rows = _distributions(probabilities)
    classes = rows.shape[1]
    if classes == 1:
        return np.ones(len(rows))
    if rule == "maximum_probability":
        sure = rows.max(axis=1)
    elif rule == "margin":
        two = np.partition(rows, classes - 2, axis=1)[:, -2:]
        sure = two[:, 1] - two[:, 0]
    else:
        logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
        sure = 1 + np.sum(rows * logs, axis=1) / np.log(classes)
    limited: NDArray[np.float64] = np.clip(sure, 0.0, 1.0)
    return limited


def accepted(probabilities: NDArray[np.floating], *, rule: ConfidenceRule, threshold: float) -> NDArray[np.bool_]:
    """Return whether each answer stands: its confidence is at least the threshold.

    Threshold 0 accepts every answer, one above 1 none. Arguments and errors as in `confidence`.

    Raises:
        InvalidParameterError: Also if the threshold is NaN.
    """
    if np.isnan(threshold):
        raise InvalidParameterError("threshold", rule="a number", value=threshold)
    stands: NDArray[np.bool_] = confidence(probabilities, rule) >= threshold
    return stands


def _distributions(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InvalidParameterError("probabilities", rule="of shape (n, classes), classes >= 1", value=rows.shape)
    if not np.all(rows >= 0) or not np.all(np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE):
        rule = "at least 0, with rows that sum to 1"
        raise InvalidParameterError("probabilities", rule=rule, value="rows that are not (logits or NaN?)")
    return rows

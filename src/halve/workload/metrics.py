"""Measures of how right an answer is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halve.core import FloatArray
from halve.errors import InvalidParameterError


class Accuracy:
    """1 where the answer equals the reference, else 0. Satisfies `halve.core.Metric`."""

    name: str = "accuracy"
    is_binary: bool = True

    def score(self, answers: NDArray[np.int64] | NDArray[np.object_], references: Sequence[int | str]) -> FloatArray:
        """Return 0.0 or 1.0 per answer, float64 (n,).

        Raises:
            InvalidParameterError: If the two are not equally long, or one holds class indices and the other texts,
                which could never be equal.
        """
        if len(answers) != len(references):
            rule = f"as many as the answers, {len(answers)}"
            raise InvalidParameterError("references", rule=rule, value=len(references))
        given = answers.tolist()
        kinds = {isinstance(value, str) for value in (*given, *references)}
        if len(kinds) > 1:
            rule = "of the same kind as the answers, class indices or texts"
            hint = "Name the classes in examples.labels to turn texts into indices."
            raise InvalidParameterError("references", rule=rule, value=(given[0], references[0]), hint=hint)
        return np.array([float(left == right) for left, right in zip(given, references, strict=True)])

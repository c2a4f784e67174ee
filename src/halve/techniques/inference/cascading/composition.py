"""What a chain of answerers does with each example, from recorded answers and acceptances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Who answers each example, and how well.

    Args:
        stage: int64 (n,): position of the stage that answers.
        scores: float64 (n,): that stage's score.
    """

    stage: NDArray[np.int64]
    scores: NDArray[np.float64]

    def costs(self, stage_costs: Sequence[float]) -> NDArray[np.float64]:
        """Return what each example costs, float64 (n,): every stage up to the one that answers is paid for.

        Args:
            stage_costs: One per stage, any unit, >= 0.
        """
        paid: NDArray[np.float64] = np.cumsum(np.asarray(stage_costs, dtype=np.float64))[self.stage]
        return paid


def compose(scores: Sequence[NDArray[np.float64]], accepts: Sequence[NDArray[np.bool_]]) -> Composition:
    """Return, per example, the first stage that accepts, and its score; the last stage always answers.

    Args:
        scores: One float64 (n,) per stage, from cheap to dear, at least one.
        accepts: One bool (n,) per stage but the last.

    Raises:
        InvalidParameterError: If there is no stage, the number of masks is not one less, or lengths differ.
    """
    if len(scores) == 0 or len(accepts) != len(scores) - 1:
        rule = f"one fewer than the {len(scores)} stages, which are at least 1"
        raise InvalidParameterError("accepts", rule=rule, value=len(accepts))
    lengths = {len(array) for array in (*scores, *accepts)}
    if len(lengths) != 1:
        raise InvalidParameterError("scores and accepts", rule="equally long", value=sorted(lengths))
    always = np.ones(len(scores[0]), dtype=np.bool_)
    stage = np.argmax(np.stack([*accepts, always]), axis=0)
    return Composition(stage=stage, scores=np.stack(scores)[stage, np.arange(len(stage))])

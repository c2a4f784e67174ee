"""The watch over early answers, as `halve serve` runs it: shadow calls, an anytime-valid bound, stricter thresholds."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from halve.core import Acceptance, Accepts, Prediction
from halve.errors import InvalidParameterError
from halve.gate.anytime import ShadowLoss
from halve.levers.cascade import serve_acceptance
from halve.techniques.inference.cascading import Watch

SETTINGS = ("the certified setting", "the one half as far from certainty", "the one a quarter as far from it")
"""From the one in force to the strictest; after the last, the last model answers everything."""


@final
class ProductionWatch:
    """Tightens early stages when too many of their answers are not the last model's; see `core.EarlyWatch`.

    Args:
        share: Of early answers that are asked twice, in (0, 1].
        disagreement_at_most: Share of all requests that may be answered otherwise than the last model would, in (0, 1).
        confidence: That thresholds are not tightened without need, however long it runs, in (0.5, 0.999].

    Raises:
        InvalidParameterError: If a number is outside its range.
    """

    def __init__(self, *, share: float, disagreement_at_most: float, confidence: float = 0.95) -> None:
        if not 0 < share <= 1:
            raise InvalidParameterError("shadow_share", rule="in (0, 1]", value=share)
        if not 0 < disagreement_at_most < 1:
            raise InvalidParameterError("disagreement_at_most", rule="in (0, 1)", value=disagreement_at_most)
        self.share = share

        def fresh() -> ShadowLoss:
            return ShadowLoss(
                loss_at_most=disagreement_at_most, confidence=confidence, least_propensity=share, least_loss=0.0
            )

        self._watch = Watch(settings=SETTINGS, evidence=fresh, loss_at_most=disagreement_at_most, confidence=confidence)

    @property
    def place(self) -> int:
        """How many times thresholds were tightened."""
        return self._watch.place

    @property
    def upper_bound(self) -> float:
        """Of the share of requests answered otherwise, under the thresholds in force."""
        return float(self._watch.evidence.upper_bound)

    def shadow(self, *, same: bool, skipped: int) -> str | None:
        """Take one comparison; see `core.EarlyWatch`."""
        if self._watch.is_off:
            return None
        verdict = self._watch.shadow(0.0 if same else 1.0, propensity=self.share, skipped=skipped)
        return None if verdict.action == "keep" else f"watch: {verdict.reason}"

    def accepts(self, accept: Acceptance) -> Accepts:
        """Return the acceptance of a stage that follows what the watch says."""
        return _following(accept, lambda: None if self._watch.is_off else self._watch.place)


def stricter(accept: Acceptance, place: int) -> Acceptance:
    """Return the acceptance after so many tightenings: 1 - (1 - threshold) / 2**place; none is looser."""
    return replace(accept, threshold=max(accept.threshold, 1 - (1 - accept.threshold) / 2**place))


def _following(accept: Acceptance, place: Callable[[], int | None]) -> Accepts:
    def accepts(prediction: Prediction) -> NDArray[np.bool_]:
        now = place()
        if now is None:
            return np.zeros(len(prediction), dtype=np.bool_)
        return serve_acceptance(stricter(accept, now))(prediction)

    return accepts

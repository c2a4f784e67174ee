"""In production: shadow results come in one by one; the chain stays, tightens, or is switched off, and says why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal, Protocol

from halve.errors import InvalidParameterError

Action = Literal["keep", "tighten", "off"]


class Evidence(Protocol):
    """What is known of one setting's mean loss per request, from its shadow calls."""

    @property
    def requests(self) -> int:
        """Return how many requests have passed."""

    @property
    def shadows(self) -> int:
        """Return how many of them were answered twice."""

    @property
    def mean(self) -> float:
        """Return the estimate of the mean loss per request."""

    @property
    def log_evidence(self) -> float:
        """Return log e against "the mean loss keeps the promise"; by chance it reaches log(1/a) with P <= a."""

    @property
    def upper_bound(self) -> float:
        """Return the upper confidence bound of the mean loss, valid at every time at once."""

    def observe(self, loss: float, *, propensity: float, skipped: int = 0) -> None:
        """Take one shadow result; see `Watch.shadow`."""


@dataclass(frozen=True, kw_only=True)
class WatchVerdict:
    """What to do after one shadow result.

    Args:
        action: keep: go on; tighten: use the next stricter setting from now on; off: the strong answerer alone.
        setting: The one in force from now on; "off" when switched off.
        reason: One sentence, for log and report.
        requests, shadows: Seen under the setting judged.
        mean_loss: Estimate under the setting judged.
        evidence: e-value against the promise; the action comes when it reaches 1 / alpha.
    """

    action: Action
    setting: str
    reason: str
    requests: int
    shadows: int
    mean_loss: float
    evidence: float


class Watch:
    """Judges the setting in force by its shadow calls and moves to the next stricter one when its promise breaks.

    Each setting gets fresh evidence. It is left when the evidence against "its mean loss per request is within the
    promise" reaches 1 / alpha, alpha = 1 - confidence. A false alarm, leaving a setting that keeps the promise, has
    probability at most alpha however long it runs; if stricter settings lose no more, that holds for all of them
    together, since a false alarm takes one at the first setting that keeps the promise. Nothing is random here: the
    same results give the same verdicts. It never loosens by itself: that takes a new certificate.

    Args:
        settings: Names, from the one in force to the strictest, at least one. After the last comes "off".
        evidence: Makes fresh evidence for a setting, such as `halve.gate.anytime.ShadowLoss`.
        loss_at_most: The promise, in score units per request, for the reasons given.
        confidence: In (0.5, 1).

    Raises:
        InvalidParameterError: If there is no setting or the confidence is outside its range.
    """

    def __init__(
        self, *, settings: Sequence[str], evidence: Callable[[], Evidence], loss_at_most: float, confidence: float
    ) -> None:
        if not settings:
            raise InvalidParameterError("settings", rule="at least 1", value=0)
        if not 0.5 < confidence < 1:
            raise InvalidParameterError("confidence", rule="in (0.5, 1)", value=confidence)
        self._settings, self._fresh = tuple(settings), evidence
        self._loss_at_most, self._needed = loss_at_most, -log(1 - confidence)
        self._place, self._evidence = 0, evidence()

    @property
    def place(self) -> int:
        """Return how many times it has tightened; as many as there are settings when it is off."""
        return self._place

    @property
    def is_off(self) -> bool:
        """Return whether the strong answerer alone is in force."""
        return self._place == len(self._settings)

    @property
    def setting(self) -> str:
        """Return the name of the setting in force, or "off"."""
        return "off" if self.is_off else self._settings[self._place]

    @property
    def evidence(self) -> Evidence:
        """Return what is known of the setting in force, for metrics."""
        return self._evidence

    def shadow(self, loss: float, *, propensity: float, skipped: int = 0) -> WatchVerdict:
        """Take one shadow result and say what to do.

        Args:
            loss: Strong score minus the score of the answer that was given. Where nothing judges answers, 1 if the
                two differ and 0 if not is an upper limit of it.
            propensity: Probability with which this request was chosen to be shadowed, fixed before its loss was
                known, in (0, 1].
            skipped: Requests since the last result that were not shadowed, those that the strong answerer got
                anyway included.

        Raises:
            InvalidParameterError: If a number is outside the range that the evidence was made for.
        """
        if self.is_off:
            return self._verdict("off", self._evidence, "the strong answerer alone is in force already")
        judged = self._evidence
        judged.observe(loss, propensity=propensity, skipped=skipped)
        if judged.log_evidence < self._needed:
            return self._verdict("keep", judged, "no evidence that the promise is broken")
        left = self.setting
        self._place += 1
        self._evidence = self._fresh()
        action: Action = "off" if self.is_off else "tighten"
        what = "switched off" if self.is_off else f"tightened to {self.setting}"
        reason = (
            f"{left} loses {judged.mean:.4f} per request over {judged.requests} requests ({judged.shadows} shadowed), "
            f"promised is {self._loss_at_most:.4f}: {what}"
        )
        return self._verdict(action, judged, reason)

    def _verdict(self, action: Action, judged: Evidence, reason: str) -> WatchVerdict:
        return WatchVerdict(
            action=action,
            setting=self.setting,
            reason=reason,
            requests=judged.requests,
            shadows=judged.shadows,
            mean_loss=judged.mean,
            evidence=exp(min(judged.log_evidence, 700.0)),
        )

"""Would a semantic cache pay on this log? Learns from its first half, proves on the next quarter, judges the last."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.among import earlier_in_partition, first_of_each, lookups_in_time
from halve.techniques.inference.caching.semantic.assessment import Assessor
from halve.techniques.inference.caching.semantic.fill_levels import fill_levels
from halve.techniques.inference.caching.semantic.fitting import FittedPolicy, LabelledLookup, calibrated, fit_assessor
from halve.techniques.inference.caching.semantic.policy import HitPolicy
from halve.techniques.inference.caching.semantic.thresholds import (
    CurvePoint,
    ThresholdChoice,
    precision_lower_bound,
    precision_recall_curve,
)

LEARN, CALIBRATE = 0.5, 0.75
"""Up to which share of the new questions it learns, and calibrates; the rest judges."""

FEWEST_NEW_QUESTIONS = 100
_FEWEST_TO_LEARN = 200
_MOST_MISTAKES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer that would have been served.

    Args:
        text: What was asked.
        stored: The stored question whose answer it would have got.
        probability: That it was right, as the policy saw it.
    """

    text: str
    stored: str
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class LogReplay:
    """What a log says. Shares of "judged" are of the last quarter of the new questions, which nothing was chosen on.

    Args:
        requests: In the log.
        exact_repeats: Requests whose very text came before in their partition: an exact cache answers those.
        new_questions: All others: what a semantic cache is asked.
        judged: New questions of the last quarter.
        hits: Of those, served, from a cache that began with the log.
        wrong_hits: Of those, wrong.
        wrong_share_upper_bound: Of wrong hits among hits, one-sided, at the confidence asked for; 1 without hits.
        choice: The threshold, or why there is none.
        curve: Precision and recall on the judged questions, by threshold, strict first.
        mistakes: The surest wrong hits, at most 20; where nothing is served, the surest that would have been wrong.
        policy: To serve with.
        learned: Whether a scorer was fitted; otherwise the cosine decides.
    """

    requests: int
    exact_repeats: int
    new_questions: int
    judged: int
    hits: int
    wrong_hits: int
    wrong_share_upper_bound: float
    choice: ThresholdChoice
    curve: tuple[CurvePoint, ...]
    mistakes: tuple[Mistake, ...]
    policy: HitPolicy
    learned: bool

    @property
    def hit_rate(self) -> float:
        """Share of judged new questions that are served."""
        return self.hits / self.judged


def replay_log(
    texts: Sequence[str],
    answers: Sequence[str],
    *,
    vectors: NDArray[np.float32],
    partitions: Sequence[str],
    precision_at_least: float,
    confidence: float = 0.95,
    neighbours: int = 8,
) -> LogReplay:
    """Return what a semantic cache would have done.

    Answers are right if they are equal to what the log answered: digests of texts are too strict for free text, where
    the log should name the answer's kind instead.

    Args:
        texts: n questions, in order of arrival.
        answers: n digests: equal ones are equal answers.
        vectors: float32 (n, d), unit length.
        partitions: n names: nothing is shared between two.
        precision_at_least: Share of served answers that must be right, in (0, 1).
        confidence: Of the proof, in (0.5, 1).
        neighbours: Looked at per question, >= 1.

    Raises:
        InvalidParameterError: If lengths differ, a value is out of range, or there are fewer than 100 new questions.
        MissingExtraError: If scikit-learn is needed and not installed.
    """
    first = first_of_each(texts, partitions)
    if len(first) < FEWEST_NEW_QUESTIONS:
        rule = f"at least {FEWEST_NEW_QUESTIONS} different ones"
        raise InvalidParameterError("questions of the log", rule=rule, value=len(first))
    new = [texts[place] for place in first.tolist()]
    own = [answers[place] for place in first.tolist()]
    homes = [partitions[place] for place in first.tolist()]
    earlier, kept = earlier_in_partition(homes), vectors[first]

    def asked(places: NDArray[np.int64], stored: int | None = None) -> list[LabelledLookup]:
        found = lookups_in_time(new, kept, own, homes, places=places, stored=stored, count=neighbours)
        return [LabelledLookup(lookup=one, answer=own[at]) for one, at in zip(found, places.tolist(), strict=True)]

    def proved(lookups: Sequence[LabelledLookup]) -> FittedPolicy:
        return calibrated(assessor or Assessor(), lookups, precision_at_least=precision_at_least, confidence=confidence)

    lessons, calibration, rest = np.split(np.arange(len(new)), [int(LEARN * len(new)), int(CALIBRATE * len(new))])
    assessor = _learned(asked(lessons))
    fitted = proved(asked(calibration))
    if fitted.choice.point is not None:
        filling = fill_levels(
            earlier, calibration, lambda *which: proved(asked(*which)).choice.threshold, full=fitted.choice.threshold
        )
        fitted = replace(fitted, policy=replace(fitted.policy, filling=filling))
    return _judged(
        fitted,
        asked(rest),
        held=earlier[rest],
        requests=len(texts),
        new=len(new),
        confidence=confidence,
        learned=bool(assessor),
    )


def _learned(lessons: Sequence[LabelledLookup]) -> Assessor | None:
    """Return an assessor fitted to look-ups; None where there are too few, or none is wrong or none is right."""
    near = [one for one in lessons if one.lookup.neighbours]
    if len(near) < _FEWEST_TO_LEARN:
        return None
    try:
        return fit_assessor(near)
    except InvalidParameterError:
        return None


def _judged(
    fitted: FittedPolicy,
    rest: Sequence[LabelledLookup],
    *,
    held: NDArray[np.int64],
    requests: int,
    new: int,
    confidence: float,
    learned: bool,
) -> LogReplay:
    policy = fitted.policy
    found = policy.assessor.assess([one.lookup for one in rest])
    sure = np.array([assessment.probability for assessment in found])
    right = np.array([one.is_right(made.candidate) for one, made in zip(rest, found, strict=True)], dtype=np.bool_)
    decided = [
        policy.judged(one.lookup, made, held=entries)
        for one, made, entries in zip(rest, found, held.tolist(), strict=True)
    ]
    served = np.array([decision.hit for decision in decided], dtype=np.bool_)
    hits, wrong = int(served.sum()), int((served & ~right).sum())
    shown = np.flatnonzero((served if hits else sure > 0) & ~right)
    mistakes = []
    for place in shown[np.argsort(-sure[shown], kind="stable")][:_MOST_MISTAKES].tolist():
        candidate = found[place].candidate
        stored = rest[place].lookup.neighbours[candidate].text if candidate is not None else ""
        mistakes.append(Mistake(text=rest[place].lookup.text, stored=stored, probability=float(sure[place])))
    low = float(precision_lower_bound(hits - wrong, hits=hits, confidence=confidence)) if hits else 0.0
    return LogReplay(
        requests=requests,
        exact_repeats=requests - new,
        new_questions=new,
        judged=len(rest),
        hits=hits,
        wrong_hits=wrong,
        wrong_share_upper_bound=1 - low,
        choice=fitted.choice,
        curve=precision_recall_curve(sure, right, confidence=confidence),
        mistakes=tuple(mistakes),
        policy=policy,
        learned=learned,
    )

"""From labelled look-ups to a policy: fits the scorers on some, chooses the threshold on others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.assessment import (
    CANDIDATES,
    NAMES,
    Assessor,
    PairRows,
)
from halve.techniques.inference.caching.semantic.evidence import PAIR_NAMES, Lookup, Vectors, pair_evidence
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.policy import HitPolicy, Promise
from halve.techniques.inference.caching.semantic.rarity import Rarity
from halve.techniques.inference.caching.semantic.scorer import Scorer
from halve.techniques.inference.caching.semantic.terms import pair_terms
from halve.techniques.inference.caching.semantic.thresholds import ThresholdChoice, choose_threshold
from halve.techniques.inference.caching.semantic.training import ScorerRecipe, fit_scorer
from halve.techniques.inference.caching.semantic.vetoes import DEFAULT_VETOES

Array = NDArray[np.float64]

FARTHEST_SHARE = 0.01
"""Of right candidates: so few have a nearest neighbour farther away than look-ups that are not looked into."""

FEWEST_LOOKUPS = 200
"""Look-ups with a candidate below which only pairs are scored: the neighbours around are then no evidence."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledLookup:
    """A look-up and which answer would have been right.

    Args:
        lookup: What was asked and found.
        answer: Digest of the right answer; a neighbour is right if its answer is equal. Empty: none of them is.
        group: Look-ups of one group stand in one fold; by default those with one right answer do, and those without
            one by their text.
    """

    lookup: Lookup
    answer: str
    group: str = ""

    @property
    def fold_key(self) -> str:
        """What keeps look-ups together: the group, else the answer, else the text."""
        return self.group or self.answer or f"text {self.lookup.text}"

    def is_right(self, candidate: int | None) -> bool:
        """Return whether a neighbour's answer is the right one; False for none."""
        return candidate is not None and bool(self.answer) and self.lookup.neighbours[candidate].answer == self.answer


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPairs:
    """Pairs of questions and whether one answer serves both. They teach the pair scorer alone.

    Args:
        ones, others: Texts, n of each.
        right: bool (n,).
        one_vectors, other_vectors: float32 (n, d), unit length, of the encoder that look-ups use.
        groups: n keys; pairs of one group stand in one fold, with look-ups of that group. By default each is its own.
    """

    ones: Sequence[str]
    others: Sequence[str]
    right: NDArray[np.bool_]
    one_vectors: Vectors
    other_vectors: Vectors
    groups: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedPolicy:
    """A policy and how its threshold came about.

    Args:
        policy: What to serve with; it serves nothing if the choice is "do not enable".
        choice: Of the threshold.
        probabilities: float64 (n,): what the policy says of each calibration look-up; 0 where it would ask about none.
        right: bool (n,): whether it would be right there.
    """

    policy: HitPolicy
    choice: ThresholdChoice
    probabilities: Array
    right: NDArray[np.bool_]


def fit_policy(
    lookups: Sequence[LabelledLookup],
    *,
    calibration: Sequence[LabelledLookup],
    precision_at_least: float,
    confidence: float = 0.95,
    pairs: LabelledPairs | None = None,
    vetoes: Iterable[str] = DEFAULT_VETOES,
    candidates: int = CANDIDATES,
    recipe: ScorerRecipe | None = None,
) -> FittedPolicy:
    """Return a policy whose hits are right as often as promised, or one that serves nothing and says why.

    The scorers are fitted on `lookups` and `pairs` (see `fit_assessor`), the threshold is chosen on `calibration`
    (see `choose_threshold`), which must hold other questions, of the traffic to be served: the look-ups that came
    after are best.

    Args:
        lookups: To learn from; may be empty if there are pairs.
        calibration: To choose the threshold on; at least 1.
        precision_at_least: Share of served answers that must be right, in (0, 1).
        confidence: Of the proof, in (0.5, 1).
        pairs: Further examples for the pair scorer.
        vetoes, candidates, recipe: As in `fit_assessor`.

    Raises:
        InvalidParameterError: If a value is out of range or there are too few labels, see `fit_scorer`.
        MissingExtraError: If scikit-learn is needed and not installed.
    """
    assessor = fit_assessor(lookups, pairs=pairs, vetoes=vetoes, candidates=candidates, recipe=recipe)
    return calibrated(assessor, calibration, precision_at_least=precision_at_least, confidence=confidence)


def calibrated(
    assessor: Assessor, calibration: Sequence[LabelledLookup], *, precision_at_least: float, confidence: float = 0.95
) -> FittedPolicy:
    """Return the policy of an assessor and the threshold that look-ups prove: `fit_policy` after the fitting.

    One assessor may be calibrated for several targets. Arguments and errors as in `fit_policy`.
    """
    found = assessor.assess([labelled.lookup for labelled in calibration])
    sure = np.array([assessment.probability for assessment in found])
    right = np.array(
        [labelled.is_right(assessment.candidate) for labelled, assessment in zip(calibration, found, strict=True)],
        dtype=np.bool_,
    )
    choice = choose_threshold(sure, right, precision_at_least=precision_at_least, confidence=confidence)
    policy = HitPolicy(threshold=choice.threshold, assessor=assessor, promise=Promise.of(choice))
    return FittedPolicy(policy=policy, choice=choice, probabilities=sure, right=right)


def fit_assessor(
    lookups: Sequence[LabelledLookup],
    *,
    pairs: LabelledPairs | None = None,
    vetoes: Iterable[str] = DEFAULT_VETOES,
    candidates: int = CANDIDATES,
    recipe: ScorerRecipe | None = None,
) -> Assessor:
    """Return vetoes and scorers fitted to labelled look-ups and pairs.

    Every question and each of its first neighbours make a pair; these and `pairs` teach the pair scorer. What it says
    of pairs it was not fitted on chooses a candidate in each look-up; the candidates and their surroundings teach the
    scorer of look-ups, if there are 200 or more. With as many right ones, look-ups farther away than nearly all of
    them are misses from then on, which costs one right candidate in a hundred and saves the evidence of the others.

    Args:
        lookups, pairs: Examples, at least 20 pairs in all.
        vetoes: Names of rules.
        candidates: Nearest neighbours whose pairs are scored.
        recipe: ScorerRecipe() if None.

    Raises:
        InvalidParameterError: If there are too few labels or only one kind, see `fit_scorer`.
        MissingExtraError: If scikit-learn is needed and not installed.
    """
    recipe = recipe or ScorerRecipe()
    questions = [labelled.lookup for labelled in lookups]
    rarity = Rarity.of_texts(sorted(_texts(questions, pairs)))
    plain = Assessor(vetoes=tuple(vetoes), rarity=rarity, candidates=candidates)
    rows = plain.rows(questions, for_fitting=True)
    pair_scorer, left_out = _fit_pairs(lookups, rows, pairs, rarity, recipe)
    scored = replace(plain, pair_scorer=pair_scorer)
    chosen = [scored.choose(rows, left_out, number) for number in range(len(questions))]
    asked, features = scored.lookup_features(questions, rows, left_out, chosen)
    right = np.array([lookups[at].is_right(chosen[at]) for at in asked.tolist()], dtype=np.bool_)
    lookup_scorer = None
    if len(asked) >= FEWEST_LOOKUPS and 0 < int(right.sum()) < len(right):
        keys = _numbered([lookups[at].fold_key for at in asked.tolist()])
        examples = Examples(features=features)
        lookup_scorer = fit_scorer(examples, right, names=NAMES, groups=keys, recipe=recipe).scorer
    nearest = [lookups[at].lookup.neighbours[0].cosine for at in asked[right].tolist()]
    floor = float(np.quantile(nearest, FARTHEST_SHARE)) if len(nearest) >= FEWEST_LOOKUPS else -1.0
    return replace(scored, lookup_scorer=lookup_scorer, least_cosine=max(-1.0, min(floor, 1.0)))


def _fit_pairs(
    lookups: Sequence[LabelledLookup],
    rows: PairRows,
    pairs: LabelledPairs | None,
    rarity: Rarity,
    recipe: ScorerRecipe,
) -> tuple[Scorer, Array]:
    """Return the pair scorer, and what it says of the look-ups' pairs where it was not fitted on them."""
    counts = np.diff(rows.starts).tolist()
    right = [
        labelled.is_right(place) for labelled, count in zip(lookups, counts, strict=True) for place in range(count)
    ]
    keys = [labelled.fold_key for labelled, count in zip(lookups, counts, strict=True) for _ in range(count)]
    examples, labels = rows.examples, np.array(right, dtype=np.bool_)
    if pairs is not None:
        if pairs.groups and len(pairs.groups) != len(pairs.right):
            raise InvalidParameterError("groups", rule=f"as many as pairs, {len(pairs.right)}", value=len(pairs.groups))
        examples = examples.followed_by(_examples(pairs, rarity))
        labels = np.concatenate([labels, pairs.right])
        keys += list(pairs.groups) or [f"pair {number}" for number in range(len(pairs.right))]
    fitted = fit_scorer(examples, labels, names=PAIR_NAMES, groups=_numbered(keys), recipe=recipe)
    return fitted.scorer, fitted.left_out_logits[: len(rows.examples)]


def _examples(pairs: LabelledPairs, rarity: Rarity) -> Examples:
    cosines = np.sum(pairs.one_vectors.astype(np.float64) * pairs.other_vectors, axis=1)
    return Examples(
        features=pair_evidence(pairs.ones, pairs.others, cosines=cosines, rarity=rarity),
        ones=pairs.one_vectors,
        others=pairs.other_vectors,
        terms=pair_terms(pairs.ones, pairs.others),
    )


def _texts(lookups: Sequence[Lookup], pairs: LabelledPairs | None) -> set[str]:
    found = {lookup.text for lookup in lookups}
    found.update(near.text for lookup in lookups for near in lookup.neighbours)
    if pairs is not None:
        found.update(pairs.ones, pairs.others)
    return found


def _numbered(keys: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

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
from halve.techniques.inference.caching.semantic.logistic import probabilities
from halve.techniques.inference.caching.semantic.policy import HitPolicy, Promise
from halve.techniques.inference.caching.semantic.rarity import Rarity
from halve.techniques.inference.caching.semantic.reach import FARTHEST_SHARE, Reach
from halve.techniques.inference.caching.semantic.scorer import Scorer
from halve.techniques.inference.caching.semantic.terms import pair_terms
from halve.techniques.inference.caching.semantic.thresholds import ThresholdChoice, choose_threshold
from halve.techniques.inference.caching.semantic.training import ScorerRecipe, fit_scorer
from halve.techniques.inference.caching.semantic.vetoes import DEFAULT_VETOES

Array = NDArray[np.float64]

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
    of pairs it was not fitted on shows how far behind the nearest neighbour right ones lie, and chooses a candidate in
    each look-up; the candidates and their surroundings teach the scorer of look-ups, if there are 200 or more. What is
    said of right ones by scorers that have not seen them limits how sure a look-up can be by its nearest cosine, see
    `Reach`. Both limits cost one right hit in 500 each, and save the evidence of most misses and of far neighbours.

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
    behind = _cosines_behind(rows)
    most_behind = _most_behind(behind, _right_pairs(lookups, rows) & (left_out >= 0))
    scored = replace(plain, pair_scorer=pair_scorer, most_behind=most_behind)
    rows, left_out = rows.kept(behind <= most_behind), left_out[behind <= most_behind]
    chosen = [scored.choose(rows, left_out, number) for number in range(len(questions))]
    asked, features = scored.lookup_features(questions, rows, left_out, chosen)
    right = np.array([lookups[at].is_right(chosen[at]) for at in asked.tolist()], dtype=np.bool_)
    lookup_scorer, sure = None, probabilities(_of_chosen(rows, left_out, chosen))
    if len(asked) >= FEWEST_LOOKUPS and 0 < int(right.sum()) < len(right):
        keys = _numbered([lookups[at].fold_key for at in asked.tolist()])
        fitted = fit_scorer(Examples(features=features), right, names=NAMES, groups=keys, recipe=recipe)
        lookup_scorer, sure = fitted.scorer, probabilities(fitted.left_out_logits)
    nearest = np.array([lookups[at].lookup.neighbours[0].cosine for at in asked.tolist()])
    return replace(scored, lookup_scorer=lookup_scorer, reach=Reach.of(nearest[right], sure[right]))


def _right_pairs(lookups: Sequence[LabelledLookup], rows: PairRows) -> NDArray[np.bool_]:
    counts = np.diff(rows.starts).tolist()
    right = [one.is_right(place) for one, count in zip(lookups, counts, strict=True) for place in range(count)]
    return np.array(right, dtype=np.bool_)


def _cosines_behind(rows: PairRows) -> Array:
    """Return for each pair how far its cosine is behind that of the nearest neighbour, >= 0."""
    cosines, counts = rows.examples.features[:, PAIR_NAMES.index("cosine")], np.diff(rows.starts)
    nearest = cosines[rows.starts[:-1][counts > 0]]
    return np.repeat(nearest, counts[counts > 0]) - cosines


def _most_behind(behind: Array, found: NDArray[np.bool_]) -> float:
    """Return how far behind the nearest neighbour nearly all pairs are that were rightly found likely."""
    if found.sum() < FEWEST_LOOKUPS:
        return 2.0
    return float(np.clip(np.quantile(behind[found], 1 - FARTHEST_SHARE), 0, 2))


def _of_chosen(rows: PairRows, logits: Array, chosen: Sequence[int | None]) -> Array:
    """Return the log-odds of each look-up's candidate, of those that have one."""
    places = [rows.starts[at] + place for at, place in enumerate(chosen) if place is not None]
    return logits[np.array(places, dtype=np.int64)]


def _fit_pairs(
    lookups: Sequence[LabelledLookup],
    rows: PairRows,
    pairs: LabelledPairs | None,
    rarity: Rarity,
    recipe: ScorerRecipe,
) -> tuple[Scorer, Array]:
    """Return the pair scorer, and what it says of the look-ups' pairs where it was not fitted on them."""
    counts = np.diff(rows.starts).tolist()
    keys = [labelled.fold_key for labelled, count in zip(lookups, counts, strict=True) for _ in range(count)]
    examples, labels = rows.examples, _right_pairs(lookups, rows)
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

"""Fits a scorer to labelled evidence: members on folds, their weights and calibration on what each fold left out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import fit_logistic
from halve.techniques.inference.caching.semantic.network import NetworkRecipe, fit_network
from halve.techniques.inference.caching.semantic.scorer import Member, Model, Scorer, model_logits
from halve.techniques.inference.caching.semantic.trees import fit_trees

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Fit = Callable[[NDArray[np.bool_]], Model]

FEWEST_FOR_TREES = 1_000
"""Labels below which boosted trees are not fitted: logistic regression on the same evidence has less to learn."""

FEWEST_FOR_NETWORK = 5_000
"""Labels below which no network is fitted to the vectors."""

_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class ScorerRecipe:
    """How a scorer is fitted.

    Args:
        kind: `auto` goes by the number of labels; `logistic` and `trees` stop there whatever it is.
        folds: Parts that are left out in turn, >= 2.
        trees: Of each forest.
        leaves: Most of each tree.
        learning_rate: Share of each tree that is added.
        network: How the networks are trained.
        seed: Of folds, trees and networks.
    """

    kind: Literal["auto", "logistic", "trees"] = "auto"
    folds: int = 3
    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.06
    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedScorer:
    """A scorer and what it says of its own examples when it has not seen them.

    Args:
        scorer: The mean of what was fitted on the folds.
        left_out_logits: float64 (n,): calibrated log-odds of each example, from models fitted on the other folds.
        fold: int64 (n,): which fold each example was left out in.
    """

    scorer: Scorer
    left_out_logits: Array
    fold: NDArray[np.int64]


def fit_scorer(
    features: Array,
    right: NDArray[np.bool_],
    *,
    names: tuple[str, ...],
    groups: NDArray[np.int64],
    ones: Single | None = None,
    others: Single | None = None,
    recipe: ScorerRecipe | None = None,
) -> FittedScorer:
    """Return a scorer fitted to labelled evidence.

    Members are logistic regression, from 1,000 labels boosted trees, and from 5,000 with vectors a network on both.
    Each is fitted once per fold, on the other folds; examples of one group share a fold. A logistic regression on
    the log-odds of left-out examples weighs the members and calibrates. The scorer means the fold models, so it is a
    little better than its calibration knows, which errs to the cautious side. About 80 s on one core for 60,000 pairs
    with vectors of 384 numbers.

    Args:
        features: float64 (n, len(names)), finite.
        right: (n,).
        names: What the columns are.
        groups: int64 (n,): what must not stand on both sides of a split, such as paraphrases of one question.
        ones, others: float32 (n, d), vectors of question and stored question; both or neither.
        recipe: ScorerRecipe() if None.

    Raises:
        InvalidParameterError: If shapes do not fit, numbers are not finite, there are fewer than 20 labels, fewer
            groups than folds, or some fold lacks right or wrong examples outside it.
        MissingExtraError: If trees are to be fitted and scikit-learn is not installed.
    """
    recipe = recipe or ScorerRecipe()
    _check(features, right, names, groups, ones, others)
    fold = _folds(groups, recipe)
    _check_folds(fold, right, recipe.folds)
    members, columns = [], []
    for fit in _fits(features, right, ones, others, recipe):
        models, logits = [], np.zeros(len(right))
        for number in range(recipe.folds):
            out = fold == number
            model = fit(~out)
            models.append(model)
            logits[out] = model_logits(model, features[out], _rows(ones, out), _rows(others, out))
        members.append(Member(models=tuple(models)))
        columns.append(logits)
    left_out = np.column_stack(columns)
    combination = fit_logistic(left_out, right)
    uses_vectors = ones is not None and _with_network(len(right), recipe)
    scorer = Scorer(
        names=names,
        members=tuple(members),
        combination=combination,
        dimension=ones.shape[1] if ones is not None and uses_vectors else 0,
    )
    return FittedScorer(scorer=scorer, left_out_logits=combination.logits(left_out), fold=fold)


def _with_network(labels: int, recipe: ScorerRecipe) -> bool:
    return recipe.kind == "auto" and labels >= FEWEST_FOR_NETWORK


def _fits(
    features: Array, right: NDArray[np.bool_], ones: Single | None, others: Single | None, recipe: ScorerRecipe
) -> list[Fit]:
    fits: list[Fit] = [lambda kept: fit_logistic(features[kept], right[kept])]
    if recipe.kind == "trees" or (recipe.kind == "auto" and len(right) >= FEWEST_FOR_TREES):
        fits.append(
            lambda kept: fit_trees(
                features[kept],
                right[kept],
                trees=recipe.trees,
                leaves=recipe.leaves,
                learning_rate=recipe.learning_rate,
                seed=recipe.seed,
            )
        )
    if ones is not None and others is not None and _with_network(len(right), recipe):
        network = replace(recipe.network, seed=recipe.seed)
        fits.append(lambda kept: fit_network(features[kept], ones[kept], others[kept], right[kept], recipe=network))
    return fits


def _folds(groups: NDArray[np.int64], recipe: ScorerRecipe) -> NDArray[np.int64]:
    """Return a fold for each example: groups are shuffled and dealt out."""
    found, which = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(recipe.seed).permutation(len(found)) % recipe.folds
    fold: NDArray[np.int64] = dealt[which]
    return fold


def _rows(vectors: Single | None, kept: NDArray[np.bool_]) -> Single | None:
    return None if vectors is None else vectors[kept]


def _check(
    features: Array,
    right: NDArray[np.bool_],
    names: tuple[str, ...],
    groups: NDArray[np.int64],
    ones: Single | None,
    others: Single | None,
) -> None:
    n = len(right)
    if n < _FEWEST:
        raise InvalidParameterError("labels", rule=f"at least {_FEWEST}", value=n)
    if features.shape != (n, len(names)) or groups.shape != (n,):
        rule = f"of shapes ({n}, {len(names)}) and ({n},)"
        raise InvalidParameterError("features and groups", rule=rule, value=(features.shape, groups.shape))
    if not np.all(np.isfinite(features)):
        raise InvalidParameterError("features", rule="finite", value="some that are not")
    if (ones is None) != (others is None):
        raise InvalidParameterError("ones and others", rule="both given or neither", value=None)
    if (
        ones is not None
        and others is not None
        and not (ones.ndim == 2 and len(ones) == n and ones.shape == others.shape)
    ):
        raise InvalidParameterError("ones and others", rule=f"of shape ({n}, d)", value=(ones.shape, others.shape))


def _check_folds(fold: NDArray[np.int64], right: NDArray[np.bool_], folds: int) -> None:
    if folds < 2:
        raise InvalidParameterError("folds", rule="at least 2", value=folds)
    for number in range(folds):
        kept = right[fold != number]
        if not np.any(fold == number) or not 0 < int(kept.sum()) < len(kept):
            rule = "right and wrong examples in every fold"
            raise InvalidParameterError("labels", rule=rule, value=f"{int(right.sum())} right of {len(right)}")

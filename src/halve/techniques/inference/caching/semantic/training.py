"""Fits a scorer to labelled evidence: members on folds, their weights and calibration on what each fold left out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.logistic import fit_logistic
from halve.techniques.inference.caching.semantic.network import NetworkRecipe, fit_network
from halve.techniques.inference.caching.semantic.scorer import Member, Model, Scorer, model_logits
from halve.techniques.inference.caching.semantic.trees import BoostedTrees, fit_trees, mean_forest
from halve.techniques.inference.caching.semantic.words import WordModel, fit_words, mean_model

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Fit = Callable[[Examples, Flags], Model]

FEWEST_FOR_TREES = 1_000
"""Labels below which neither boosted trees nor words are fitted: logistic regression has less to learn."""

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
    examples: Examples,
    right: Flags,
    *,
    names: tuple[str, ...],
    groups: NDArray[np.int64],
    recipe: ScorerRecipe | None = None,
) -> FittedScorer:
    """Return a scorer fitted to labelled evidence.

    Members are logistic regression, from 1,000 labels boosted trees and (with terms) a weight for each word, and from
    5,000 (with vectors) a network. Each is fitted once per fold, on the other folds; examples of one group share a
    fold. A logistic regression on the log-odds of left-out examples weighs the members and calibrates. The scorer
    means the fold models, so it is a little better than its calibration knows, which errs to the cautious side.

    Args:
        examples: n rows, finite.
        right: (n,).
        names: What the columns of the features are.
        groups: int64 (n,): what must not stand on both sides of a split, such as paraphrases of one question.
        recipe: ScorerRecipe() if None.

    Raises:
        InvalidParameterError: If shapes do not fit, numbers are not finite, there are fewer than 20 labels, fewer
            groups than folds, or some fold lacks right or wrong examples outside it.
        MissingExtraError: If trees are to be fitted and scikit-learn is not installed.
    """
    recipe = recipe or ScorerRecipe()
    _check(examples, right, names, groups)
    fold = _folds(groups, recipe)
    _check_folds(fold, right, recipe.folds)
    fits = _fits(examples, recipe)
    models: list[list[Model]] = [[] for _ in fits]
    left_out = np.zeros((len(right), len(fits)))
    for number in range(recipe.folds):
        out = fold == number
        inside, outside = examples.kept(~out), examples.kept(out)
        for column, fit in enumerate(fits):
            model = fit(inside, right[~out])
            models[column].append(model)
            left_out[out, column] = model_logits(model, outside)
    combination = fit_logistic(left_out, right)
    scorer = Scorer(
        names=names,
        members=tuple(_member(fitted) for fitted in models),
        combination=combination,
        dimension=examples.dimension if _with_network(examples, recipe) else 0,
    )
    return FittedScorer(scorer=scorer, left_out_logits=combination.logits(left_out), fold=fold)


def _member(models: list[Model]) -> Member:
    """Return the models as one member: as one model where their mean is a model of the same kind."""
    words = [model for model in models if isinstance(model, WordModel)]
    forests = [model for model in models if isinstance(model, BoostedTrees)]
    if words:
        return Member(models=(mean_model(words),))
    return Member(models=(mean_forest(forests),) if forests else tuple(models))


def _with_network(examples: Examples, recipe: ScorerRecipe) -> bool:
    return recipe.kind == "auto" and examples.dimension > 0 and len(examples) >= FEWEST_FOR_NETWORK


def _fits(examples: Examples, recipe: ScorerRecipe) -> list[Fit]:
    fits: list[Fit] = [lambda inside, right: fit_logistic(inside.features, right)]
    many = recipe.kind == "auto" and len(examples) >= FEWEST_FOR_TREES
    if many or recipe.kind == "trees":
        fits.append(
            lambda inside, right: fit_trees(
                inside.features,
                right,
                trees=recipe.trees,
                leaves=recipe.leaves,
                learning_rate=recipe.learning_rate,
                seed=recipe.seed,
            )
        )
    if many and examples.terms is not None:
        fits.append(_fit_words)
    if _with_network(examples, recipe):
        network = replace(recipe.network, seed=recipe.seed)
        fits.append(lambda inside, right: _fit_network(inside, right, network))
    return fits


def _fit_words(inside: Examples, right: Flags) -> Model:
    assert inside.terms is not None
    return fit_words(inside.features, inside.terms, right)


def _fit_network(inside: Examples, right: Flags, recipe: NetworkRecipe) -> Model:
    assert inside.ones is not None
    assert inside.others is not None
    return fit_network(inside.features, inside.ones, inside.others, right, recipe=recipe)


def _folds(groups: NDArray[np.int64], recipe: ScorerRecipe) -> NDArray[np.int64]:
    """Return a fold for each example: groups are shuffled and dealt out."""
    found, which = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(recipe.seed).permutation(len(found)) % recipe.folds
    fold: NDArray[np.int64] = dealt[which]
    return fold


def _check(examples: Examples, right: Flags, names: tuple[str, ...], groups: NDArray[np.int64]) -> None:
    n = len(right)
    if n < _FEWEST:
        raise InvalidParameterError("labels", rule=f"at least {_FEWEST}", value=n)
    shapes = examples.features.shape, groups.shape
    if shapes != ((n, len(names)), (n,)):
        raise InvalidParameterError(
            "features and groups", rule=f"of shapes ({n}, {len(names)}) and ({n},)", value=shapes
        )
    if not np.all(np.isfinite(examples.features)):
        raise InvalidParameterError("features", rule="finite", value="some that are not")


def _check_folds(fold: NDArray[np.int64], right: Flags, folds: int) -> None:
    if folds < 2:
        raise InvalidParameterError("folds", rule="at least 2", value=folds)
    for number in range(folds):
        kept = right[fold != number]
        if not np.any(fold == number) or not 0 < int(kept.sum()) < len(kept):
            rule = "right and wrong examples in every fold"
            raise InvalidParameterError("labels", rule=rule, value=f"{int(right.sum())} right of {len(right)}")

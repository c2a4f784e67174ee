import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic import training
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, probabilities
from halve.techniques.inference.caching.semantic.network import NetworkRecipe, PairNetwork
from halve.techniques.inference.caching.semantic.terms import pair_terms
from halve.techniques.inference.caching.semantic.training import ScorerRecipe, fit_scorer
from halve.techniques.inference.caching.semantic.trees import BoostedTrees
from halve.techniques.inference.caching.semantic.words import WordModel

NAMES = ("a", "b")
QUICK = ScorerRecipe(trees=20, leaves=4, network=NetworkRecipe(width=8, epochs=1))


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 2))
    right = rng.random(n) < probabilities(2 * features[:, 0] - 1)
    vectors = rng.normal(size=(n, 3)).astype(np.float32)
    return features, right, vectors


def kinds(fitted):
    return [type(member.models[0]) for member in fitted.scorer.members]


def examples_of(n, *, with_vectors=True, with_terms=True):
    features, right, vectors = drawn(n)
    texts = [f"word{number % 11} more" for number in range(n)]
    return right, Examples(
        features=features,
        ones=vectors if with_vectors else None,
        others=vectors if with_vectors else None,
        terms=pair_terms(texts, texts[::-1]) if with_terms else None,
    )


def test_what_is_fitted_goes_by_the_number_of_labels(monkeypatch):
    monkeypatch.setattr(training, "FEWEST_FOR_TREES", 100)
    monkeypatch.setattr(training, "FEWEST_FOR_NETWORK", 200)

    def fitted(n, recipe=QUICK, **given):
        right, examples = examples_of(n, **given)
        return fit_scorer(examples, right, names=NAMES, groups=np.arange(n), recipe=recipe)

    assert kinds(fitted(50)) == [LogisticModel]
    assert kinds(fitted(150)) == [LogisticModel, BoostedTrees, WordModel]
    assert fitted(150).scorer.dimension == 0
    whole = fitted(250)
    assert kinds(whole) == [LogisticModel, BoostedTrees, WordModel, PairNetwork]
    assert whole.scorer.dimension == 3
    assert [len(member.models) for member in whole.scorer.members] == [3, 1, 1, 3]  # words and trees become one
    assert kinds(fitted(250, with_vectors=False)) == [LogisticModel, BoostedTrees, WordModel]
    assert kinds(fitted(250, with_terms=False)) == [LogisticModel, BoostedTrees, PairNetwork]
    assert kinds(fitted(250, ScorerRecipe(kind="logistic"))) == [LogisticModel]
    assert kinds(fitted(50, ScorerRecipe(kind="trees", trees=5))) == [LogisticModel, BoostedTrees]


def test_probabilities_are_calibrated_on_others():
    features, right, _ = drawn(3_000)
    fitted = fit_scorer(Examples(features=features), right, names=NAMES, groups=np.arange(3_000), recipe=QUICK)
    assert kinds(fitted) == [LogisticModel, BoostedTrees]
    others, answers, _ = drawn(3_000, seed=1)
    said = fitted.scorer.probabilities(Examples(features=others))
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
        inside = (said >= low) & (said < high)
        assert said[inside].mean() == pytest.approx(answers[inside].mean(), abs=0.06)


def test_examples_are_left_out_with_their_whole_group():
    features, right, _ = drawn(300)
    groups = np.arange(300) // 7
    fitted = fit_scorer(Examples(features=features), right, names=NAMES, groups=groups)
    assert all(len(set(fitted.fold[groups == group])) == 1 for group in set(groups))
    assert sorted(set(fitted.fold)) == [0, 1, 2]
    model = fitted.scorer.members[0].models[1]
    out = fitted.fold == 1
    expected = fitted.scorer.combination.logits(model.logits(features[out])[:, None])
    assert fitted.left_out_logits[out].tolist() == expected.tolist()


def test_memorised_noise_is_not_taken_for_knowledge():
    rng = np.random.default_rng(0)
    features, right = rng.normal(size=(1_500, 2)), rng.random(1_500) < 0.3
    fitted = fit_scorer(Examples(features=features), right, names=NAMES, groups=np.arange(1_500), recipe=QUICK)
    said = fitted.scorer.probabilities(Examples(features=rng.normal(size=(1_000, 2))))
    assert said == pytest.approx(np.full(1_000, 0.3), abs=0.15)


def test_the_same_arguments_give_the_same_scorer():
    features, right, _ = drawn(1_200)
    one, again = (
        fit_scorer(Examples(features=features), right, names=NAMES, groups=np.arange(1_200), recipe=QUICK).scorer
        for _ in range(2)
    )
    assert one.to_document() == again.to_document()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"features": np.zeros((19, 2)), "right": np.ones(19, bool), "groups": np.arange(19)},
            "labels must be at least 20",
        ),
        ({"features": np.zeros((40, 3))}, "features and groups must be of shapes"),
        ({"groups": np.arange(3)}, "features and groups must be of shapes"),
        ({"features": np.full((40, 2), np.nan)}, "features must be finite"),
        ({"right": np.ones(40, bool)}, "right and wrong examples in every fold"),
        ({"groups": np.zeros(40, np.int64)}, "right and wrong examples in every fold"),
        ({"recipe": ScorerRecipe(folds=1)}, "folds must be at least 2"),
    ],
)
def test_bad_input(change, match):
    features, right, _ = drawn(40)
    given = {"features": features, "right": right, "groups": np.arange(40)} | change
    with pytest.raises(InvalidParameterError, match=match):
        fit_scorer(Examples(features=given.pop("features")), given.pop("right"), names=NAMES, **given)

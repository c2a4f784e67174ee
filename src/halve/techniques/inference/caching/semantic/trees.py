"""Boosted trees: fitted by scikit-learn, kept as arrays, read with numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError

Array = NDArray[np.float64]


_ROWS_AT_ONCE = 1_024
"""Rows that are sent down the trees together: bounds memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoostedTrees:
    """A sum of regression trees, as log-odds: base + sum over trees of the leaf that x falls into.

    Nodes of all trees stand in one row. At a node, x goes to the first child if x[feature] <= threshold, else to the
    second; a leaf is its own child on both sides, so that `depth` steps from any root end in a leaf.

    Args:
        base: Log-odds before any tree.
        roots: int64 (trees,): the node each tree begins at.
        feature: int64 (nodes,): column that is asked; 0 at leaves.
        threshold: float64 (nodes,).
        children: int64 (2 nodes,): node i has children 2 i and 2 i + 1.
        value: float64 (nodes,): what a leaf adds.
        depth: Steps from a root to the deepest leaf.
    """

    base: float
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Array
    children: NDArray[np.int64]
    value: Array
    depth: int

    def logits(self, features: Array) -> Array:
        """Return log-odds, float64 (n,), for float64 (n, features); a row's result does not depend on the others."""
        found = np.empty(len(features))
        for start in range(0, len(features), _ROWS_AT_ONCE):
            found[start : start + _ROWS_AT_ONCE] = self._some_logits(features[start : start + _ROWS_AT_ONCE])
        return found

    def _some_logits(self, features: Array) -> Array:
        # `take` on flat arrays: several times faster than indexing, and this is most of a decision's time.
        columns, numbers = features.shape[1], features.ravel()
        offsets = np.repeat(np.arange(len(features)) * columns, len(self.roots))
        nodes = np.tile(self.roots, len(features))
        for _ in range(self.depth):
            asked = numbers.take(self.feature.take(nodes) + offsets)
            nodes = self.children.take(2 * nodes + (asked > self.threshold.take(nodes)))
        sums = self.value.take(nodes).reshape(len(features), len(self.roots)).sum(axis=1)
        logits: Array = self.base + sums
        return logits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; `from_arrays` is the way back, bit for bit."""
        return {
            "base": np.array(self.base),
            "roots": self.roots.astype(np.int32),
            "feature": self.feature.astype(np.int32),
            "threshold": self.threshold,
            "children": self.children.astype(np.int32),
            "value": self.value,
            "depth": np.array(self.depth),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, features: int) -> "BoostedTrees":
        """Return the trees that `arrays` described.

        Args:
            arrays: As from `arrays`.
            features: Columns there will be.

        Raises:
            InvalidParameterError: If a node points outside, or asks a column that is not there.
        """
        nodes = len(arrays["feature"])
        inside = all(np.all((arrays[name] >= 0) & (arrays[name] < nodes)) for name in ("roots", "children"))
        sizes = len(arrays["threshold"]), len(arrays["value"]), len(arrays["children"])
        asks = arrays["feature"]
        if not inside or sizes != (nodes, nodes, 2 * nodes) or not np.all((asks >= 0) & (asks < features)):
            raise InvalidParameterError("trees", rule="nodes that point inside", value="some that do not")
        return cls(
            base=float(arrays["base"]),
            roots=arrays["roots"].astype(np.int64),
            feature=arrays["feature"].astype(np.int64),
            threshold=arrays["threshold"],
            children=arrays["children"].astype(np.int64),
            value=arrays["value"],
            depth=int(arrays["depth"]),
        )


def mean_forest(forests: Sequence[BoostedTrees]) -> BoostedTrees:
    """Return the trees whose log-odds are the mean of the forests': all trees, with values divided."""
    starts = np.cumsum([0, *(len(forest.feature) for forest in forests)])[:-1]
    placed = list(zip(starts, forests, strict=True))
    return BoostedTrees(
        base=float(np.mean([forest.base for forest in forests])),
        roots=np.concatenate([forest.roots + start for start, forest in placed]),
        feature=np.concatenate([forest.feature for forest in forests]),
        threshold=np.concatenate([forest.threshold for forest in forests]),
        children=np.concatenate([forest.children + start for start, forest in placed]),
        value=np.concatenate([forest.value for forest in forests]) / len(forests),
        depth=max(forest.depth for forest in forests),
    )


def fit_trees(
    features: Array,
    right: NDArray[np.bool_],
    *,
    trees: int = 200,
    leaves: int = 15,
    depth: int = 6,
    learning_rate: float = 0.06,
    seed: int = 0,
) -> BoostedTrees:
    """Return trees fitted to labels by gradient boosting of the log loss on histograms.

    Source: Friedman 2001, Annals of Statistics 29(5); Ke et al. 2017, LightGBM, for the histograms.

    Args:
        features: (n, features), finite.
        right: (n,), both values present.
        trees: How many, >= 1.
        leaves: Most leaves of a tree, >= 2.
        depth: Most questions on the way to a leaf, >= 1; each costs time in every decision.
        learning_rate: Share of each tree that is added, in (0, 1].
        seed: Of the binning, which samples rows beyond 200,000.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ModuleNotFoundError:
        raise MissingExtraError("fitting the cache's scorer", package="scikit-learn", extra="cache") from None
    model = HistGradientBoostingClassifier(
        max_iter=trees,
        max_leaf_nodes=leaves,
        max_depth=depth,
        learning_rate=learning_rate,
        min_samples_leaf=min(40, max(5, len(features) // 100)),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(features, right)
    return _as_arrays(model)


def _as_arrays(model: Any) -> BoostedTrees:
    """Copy the nodes out. They stand in private fields; the tests compare with the model's own answers."""
    tables = [trees[0].nodes for trees in model._predictors]
    sizes = [len(table) for table in tables]
    starts = np.cumsum([0, *sizes])[:-1]
    nodes = np.concatenate(tables)
    offset = np.repeat(starts, sizes)
    leaf = nodes["is_leaf"].astype(bool)
    itself = np.arange(len(nodes))
    children = [np.where(leaf, itself, nodes[side].astype(np.int64) + offset) for side in ("left", "right")]
    return BoostedTrees(
        base=float(np.ravel(model._baseline_prediction)[0]),
        roots=starts.astype(np.int64),
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).astype(np.float64),
        children=np.stack(children, axis=1).ravel(),
        value=np.where(leaf, nodes["value"], 0.0).astype(np.float64),
        depth=int(nodes["depth"].max()),
    )

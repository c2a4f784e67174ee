"""Boosted trees: fitted by scikit-learn, kept as arrays, read with numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, MissingExtraError

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoostedTrees:
    """A sum of regression trees, as log-odds: base + sum over trees of the leaf that x falls into.

    Nodes of all trees stand in one row. At a node, x goes left if x[feature] <= threshold, else right; a leaf is its
    own child on both sides, so that `depth` steps from any root end in a leaf.

    Args:
        base: Log-odds before any tree.
        roots: int32 (trees,): the node each tree begins at.
        feature: int32 (nodes,): column that is asked; 0 at leaves.
        threshold: float64 (nodes,).
        left, right: int32 (nodes,).
        value: float64 (nodes,): what a leaf adds.
        depth: Steps from a root to the deepest leaf.
    """

    base: float
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: Array
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: Array
    depth: int

    def logits(self, features: Array) -> Array:
        """Return log-odds, float64 (n,), for float64 (n, features); a row's result does not depend on the others."""
        if not len(features):
            return np.zeros(0)
        rows = np.arange(len(features))[:, None]
        nodes = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        for _ in range(self.depth):
            goes_left = features[rows, self.feature[nodes]] <= self.threshold[nodes]
            nodes = np.where(goes_left, self.left[nodes], self.right[nodes])
        logits: Array = self.base + self.value[nodes].sum(axis=1)
        return logits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; `from_arrays` is the way back, bit for bit."""
        return {
            "base": np.array(self.base),
            "roots": self.roots,
            "feature": self.feature,
            "threshold": self.threshold,
            "left": self.left,
            "right": self.right,
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
        pointers = [arrays[name] for name in ("roots", "left", "right")]
        inside = all(np.all((pointer >= 0) & (pointer < nodes)) for pointer in pointers)
        asks = arrays["feature"]
        if not inside or not np.all((asks >= 0) & (asks < features)):
            raise InvalidParameterError("trees", rule="nodes that point inside", value="some that do not")
        return cls(
            base=float(arrays["base"]),
            roots=arrays["roots"],
            feature=arrays["feature"],
            threshold=arrays["threshold"],
            left=arrays["left"],
            right=arrays["right"],
            value=arrays["value"],
            depth=int(arrays["depth"]),
        )


def fit_trees(
    features: Array,
    right: NDArray[np.bool_],
    *,
    trees: int = 200,
    leaves: int = 15,
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
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    nodes = np.concatenate(tables)
    offset = np.repeat(starts, sizes)
    leaf = nodes["is_leaf"].astype(bool)
    itself = np.arange(len(nodes), dtype=np.int32)
    return BoostedTrees(
        base=float(np.ravel(model._baseline_prediction)[0]),
        roots=starts,
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).astype(np.float64),
        left=np.where(leaf, itself, nodes["left"] + offset).astype(np.int32),
        right=np.where(leaf, itself, nodes["right"] + offset).astype(np.int32),
        value=np.where(leaf, nodes["value"], 0.0).astype(np.float64),
        depth=int(nodes["depth"].max()),
    )
